from __future__ import annotations

import os
import shutil
import signal
import subprocess
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import NoReturn

import pytest
from clips import write_stamped_video
from loading import LENGTHS, SIZES, find_real_videos, index_some
from stand_ins import NVML, cuda, cuvid, library
from written import device_nodes

from pipelines.errors import EnvironmentProblem
from pipelines.index.video_index import VideoIndex
from pipelines.isolation.reserve import reserve
from pipelines.machine.device import check_device
from r3d_fast.backend.paddle import choose_device, import_paddle
from r3d_fast.backend.restart import restart_with_cuda_libraries

# Of several test processes each has CPUs of its own (`pytest -n`): threads that wait actively for others on the same
# CPU would take many times as long.
if worker := os.environ.get("PYTEST_XDIST_WORKER", "").removeprefix("gw"):
    cpus, count = sorted(os.sched_getaffinity(0)), int(os.environ["PYTEST_XDIST_WORKER_COUNT"])
    os.sched_setaffinity(0, cpus[int(worker) :: count] or cpus)

# Before any test module says `import paddle`: what Paddle warns of while it is imported is not ours. The clip side's
# tests run without it.
if find_spec("paddle"):
    import_paddle()


# A suite that was started in the background ignores SIGINT, one under nohup SIGHUP, and so would the processes that the
# tests interrupt.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN:
    signal.signal(signal.SIGHUP, signal.SIG_DFL)


def pytest_configure(config: pytest.Config) -> None:
    """Start pytest again where only so Paddle 2.6 finds its CUDA libraries, as `r3d-fast` and `bench` do.

    Processes of `pytest -n` have what the first one has. Here no output is caught yet, as it is while this file is
    imported.
    """
    if "PYTEST_XDIST_WORKER" not in os.environ:
        restart_with_cuda_libraries(("pytest", "py.test", "pytest.__main__"))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the file that takes by far the longest, so that with `pytest -n` nobody waits for it at the end."""
    items.sort(key=lambda item: item.path.name != "test_docs.py")


_PRIORITY = os.sched_getscheduler(0), os.sched_getparam(0)


@pytest.fixture(autouse=True)
def own_priority() -> Iterator[None]:
    """Each test begins and ends with the priority that the tests began with.

    The AV1 encoder SVT leaves a superuser's thread real-time. What waits actively then keeps others from the CPU.
    """
    os.sched_setscheduler(0, *_PRIORITY)
    yield
    os.sched_setscheduler(0, *_PRIORITY)


@pytest.fixture(scope="module", autouse=True)
def own_processes() -> None:
    """The tests of a file begin without processes that a model of an earlier one, which is still there, keeps ready."""
    reserve(0).close()


@pytest.fixture(autouse=True)
def device_nodes_stay() -> Iterator[None]:
    """A test that replaces /dev/stdout or /dev/null by a file breaks the machine for everyone: it fails."""
    before = device_nodes()
    yield
    assert device_nodes() == before


@pytest.fixture(scope="session")
def gpu() -> str:
    """The GPU that tests marked `gpu` run on. Without one they are skipped, or fail under R3D_REQUIRE_GPU=1."""
    try:
        check_device("gpu:0")
    except EnvironmentProblem as error:
        _lack(str(error), "R3D_REQUIRE_GPU")
    return "gpu:0"


@pytest.fixture(scope="session")
def paddle_gpu(gpu: str) -> str:
    """The same where Paddle can use it too; without such a build skipped, or failed under R3D_REQUIRE_PADDLE_GPU=1."""
    try:
        choose_device("gpu")
        import_paddle().set_device("cpu")  # as the other tests expect it
    except EnvironmentProblem as error:
        _lack(str(error), "R3D_REQUIRE_PADDLE_GPU")
    return gpu


@pytest.fixture
def on_gpu(paddle_gpu: str) -> Iterator[str]:
    """The GPU on which Paddle computes during the test."""
    import_paddle().set_device(paddle_gpu)
    yield paddle_gpu
    import_paddle().set_device("cpu")


@pytest.fixture
def device(request: pytest.FixtureRequest) -> str:
    """ "cpu" or a GPU, as the test is parametrised; without a GPU that part is skipped, see `gpu`."""
    name: str = request.param
    return str(request.getfixturevalue("gpu")) if name.startswith("gpu") else name


def _lack(what: str, variable: str) -> NoReturn:
    if os.environ.get(variable) == "1":
        pytest.fail(what)
    pytest.skip(what)


def _real_root() -> Path:
    default = Path(__file__).resolve().parent.parent.parent / "shared" / "clips"
    return Path(os.environ.get("R3D_REAL_CLIPS", default))


@pytest.fixture(scope="session")
def real_clips() -> Path:
    """The folder of real clips: UCF-101/, ucfTrainTestlist/, odd/."""
    root = _real_root()
    if not (root / "UCF-101").is_dir():
        _lack(
            f"no real clips at {root}: set R3D_REAL_CLIPS to the folder that holds UCF-101/ and odd/",
            "R3D_REQUIRE_REAL",
        )
    return root


@pytest.fixture(scope="session")
def real_videos(tmp_path_factory: pytest.TempPathFactory) -> VideoIndex:
    """At most 96 real videos: of the folder UCF-101/ in R3D_REAL_CLIPS, or of that folder itself if it has classes."""
    root = _real_root()
    videos = find_real_videos(root)
    if videos is None:
        _lack(f"no real videos at {root}: set R3D_REAL_CLIPS to the folder of UCF-101's classes", "R3D_REQUIRE_REAL")
    return index_some(videos, tmp_path_factory.mktemp("real"))


@pytest.fixture
def oddities(real_clips: Path, tmp_path: Path) -> VideoIndex:
    """The real clips that are odd, indexed as far as they can be."""
    root = tmp_path / "v"
    (root / "a").mkdir(parents=True)
    for path in sorted((real_clips / "odd").iterdir()):
        if path.suffix in (".avi", ".mp4", ".mkv"):
            (root / "a" / path.name).symlink_to(path)
    return VideoIndex.build(root, workers=0, val_fraction=0.0, follow_links=True, allow_partial=True)


@pytest.fixture(scope="session")
def index(tmp_path_factory: pytest.TempPathFactory) -> VideoIndex:
    """12 stamped videos in 3 classes of 3 shapes, one of each class shorter than a clip; 8 to train on, 4 to test."""
    root = tmp_path_factory.mktemp("loader") / "videos"
    for name, size in SIZES.items():
        (root / name).mkdir(parents=True)
        for k, length in enumerate(LENGTHS):
            write_stamped_video(root / name / f"v{k}.avi", num_frames=length, size=size, b_frames=k % 3)
    return VideoIndex.build(root, val_fraction=0.34, workers=0)


@pytest.fixture
def copied(index: VideoIndex, tmp_path: Path) -> VideoIndex:
    """The same videos and index, to damage."""
    shutil.copytree(index.root, tmp_path / "videos")  # keeps the times
    shutil.copy(index.path, tmp_path / "index")
    return VideoIndex.open(tmp_path / "index", tmp_path / "videos")


@pytest.fixture
def git(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., str]:
    """What runs git in the new folder tmp_path / "checkout", which is in no repository yet, and gives its output."""
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", os.devnull)
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path))
    for name in ("GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE"):
        monkeypatch.delenv(name, raising=False)
    (tmp_path / "checkout").mkdir()

    def run(*arguments: str) -> str:
        who = ("-c", "user.name=x", "-c", "user.email=x@example.org")
        command = ["git", "-C", str(tmp_path / "checkout"), *who, *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()

    return run


@pytest.fixture(scope="session")
def v100(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with stand-ins for the driver's libraries on a machine with a V100."""
    folder = tmp_path_factory.mktemp("v100")
    cuda(folder)
    cuvid(folder)
    library(folder, "libnvidia-ml.so.1", NVML)
    return folder
