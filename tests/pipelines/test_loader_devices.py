"""The loader on each device: the same clips as the CPU's, whoever decodes, handed over without a copy."""

from __future__ import annotations

import ctypes
import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from clips import write_stamped_video
from devices import DEVICES, PIXELS, assert_same_clips, load, on_host
from numpy.typing import NDArray

from pipelines.dali.decoding_memory import clip_bytes, sessions_bytes
from pipelines.dali.routing import limits_of_device
from pipelines.index.video_index import VideoIndex
from pipelines.machine.nvidia import probe_driver

CODECS = {"cpu": ("mjpeg", "avi"), "gpu:0": ("mpeg4", "avi")}


@pytest.fixture(scope="session")
def videos(tmp_path_factory: pytest.TempPathFactory) -> dict[str, VideoIndex]:
    """By device 12 stamped videos that DALI decodes there, one in four of a codec that it does not."""
    found = {}
    for device, (codec, suffix) in CODECS.items():
        root = tmp_path_factory.mktemp("devices") / "v"
        for number in range(12):
            folder = root / f"class{number % 3}"
            folder.mkdir(parents=True, exist_ok=True)
            other = ("mpeg2video", "avi") if number % 4 == 3 else (codec, suffix)
            path = folder / f"v{number}.{other[1]}"
            write_stamped_video(path, codec=other[0], num_frames=18 + number, size=(176, 144))
        found[device] = VideoIndex.build(root, workers=0, val_fraction=0.0)
    return found


def epochs(index: VideoIndex, decoder: str, device: str, **options: Any) -> list[Any]:
    with load(index, decoder, device, **options) as loader:
        return [batch for number in range(4) for batch in loader.epoch(number)]


@pytest.mark.parametrize("device", DEVICES, indirect=True)
@pytest.mark.parametrize("train", [True, False])
@pytest.mark.parametrize(
    ("decoder", "options"),
    [("pyav", {}), ("dali", {}), ("hybrid", {"dali_share": 0.5}), ("hybrid", {}), ("auto", {})],
    ids=["pyav", "dali", "half", "hybrid", "auto"],
)
def test_clips_are_those_of_the_cpu(
    videos: dict[str, VideoIndex], device: str, train: bool, decoder: str, options: dict[str, Any]
) -> None:
    """The same videos, frames, crops and mirrors; on a GPU also within the rounding of its resize."""
    index = videos[device]
    expected = epochs(index, "pyav", "cpu", train=train)
    found = epochs(index, decoder, device, train=train, **options)
    error = assert_same_clips(found, expected)
    if decoder == "pyav":
        assert error < 0.3
    assert all(batch.is_real.all() for batch in found)


@pytest.mark.parametrize("device", DEVICES, indirect=True)
@pytest.mark.parametrize("layout", ["NCTHW", "NTHWC"])
def test_half_precision_and_layout(videos: dict[str, VideoIndex], device: str, layout: str) -> None:
    augment = PIXELS.model_copy(update={"layout": layout, "value_max": 1})
    full = epochs(videos[device], "dali", device, augment=augment)
    half = epochs(videos[device], "dali", device, augment=augment, dtype="float16")
    for a, b in zip(full, half, strict=True):
        assert a.clips.dtype != b.clips.dtype
        assert tuple(b.clips.shape()) == ((4, 3, 8, 112, 112) if layout == "NCTHW" else (4, 8, 112, 112, 3))
        assert np.abs(on_host(a.clips) - on_host(b.clips)).max() <= 1 / 2048


@pytest.mark.parametrize("device", DEVICES, indirect=True)
def test_measured_decoding_is_told(videos: dict[str, VideoIndex], device: str) -> None:
    with load(videos[device], "hybrid", device) as loader:
        for number in range(4):
            list(loader.epoch(number))
        assert loader.routing is not None
        assert loader.routing.decoder == "hybrid"
        assert "clips/s expected: pyav" in loader.routing.reason
        print(loader.routing)


@pytest.mark.gpu
def test_auto_measures_on_a_gpu(videos: dict[str, VideoIndex], gpu: str) -> None:
    """Both numbers of threads, and the check beside PyAV where NVDEC was to decode: at most 25 batches of these 30."""
    with load(videos[gpu], "auto", gpu, threads="auto") as loader:
        for number in range(10):
            list(loader.epoch(number))
        assert loader.routing is not None
        assert "clips/s expected: pyav" in loader.routing.reason
        assert loader.routing.decoder == "pyav" or "; then a batch took " in loader.routing.reason
        print(loader.routing)


@pytest.mark.gpu
def test_the_threads_of_nvdec_are_tried_on_a_gpu(videos: dict[str, VideoIndex], gpu: str) -> None:
    engines = max(caps.engines for caps in limits_of_device(gpu).caps or ())
    if not engines:
        pytest.skip("this driver does not say how many engines NVDEC has")
    with load(videos[gpu], "dali", gpu, threads="auto") as loader:
        for number in range(4):
            list(loader.epoch(number))
        assert loader.routing is not None
        assert loader.routing.threads in (engines, 2 * engines)
        assert loader.routing.reason.startswith(f"as set; ms a batch by threads: {2 * engines}: ")
        print(loader.routing)


WAITING = """
import ctypes, sys
from pathlib import Path
from pipelines import ClipLoader, LoaderSpec, VideoIndex
spec = LoaderSpec(batch_size=4, workers=0, decoder="dali")
with ClipLoader(VideoIndex.open(Path(sys.argv[1])), loader=spec, split=None, train=True, device="gpu:0") as loader:
    next(iter(loader))
    cuda, flags, active = ctypes.CDLL("libcuda.so.1"), ctypes.c_uint(), ctypes.c_int()
    assert cuda.cuDevicePrimaryCtxGetState(0, ctypes.byref(flags), ctypes.byref(active)) == 0
    print(active.value, flags.value & 7)
"""


@pytest.mark.gpu
@pytest.mark.parametrize(("wait", "flag"), [("sleep", 4), ("spin", 0)])
def test_threads_wait_for_a_gpu_as_they_are_told(videos: dict[str, VideoIndex], gpu: str, wait: str, flag: int) -> None:
    """CU_CTX_SCHED_BLOCKING_SYNC is 4; what made the context, DALI here, leaves it."""
    done = subprocess.run(
        [sys.executable, "-c", WAITING, str(videos[gpu].path)], env={**os.environ, "R3D_FAST_GPU_WAIT": wait},
        capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    assert done.stdout.split() == ["1", str(flag)], done.stderr


def as_tensor(library: str, clips: Any, device: str) -> Any:
    """The clips as a tensor of `library` that shares their memory, and its address."""
    if library == "numpy":
        array = np.from_dlpack(clips)
        return array, array.ctypes.data
    if library == "torch":
        import torch

        tensor = torch.from_dlpack(clips)
        return tensor, tensor.data_ptr()
    if library == "cupy":
        import cupy

        array = cupy.from_dlpack(clips)
        return array, array.data.ptr
    from r3d_fast.backend.paddle import from_dlpack, import_paddle

    import_paddle().set_device(device)
    tensor = from_dlpack(clips)
    return tensor, tensor.data_ptr()


def as_array(library: str, tensor: Any) -> NDArray[np.float32]:
    if library == "torch":
        tensor = tensor.cpu()
    if library == "cupy":
        tensor = tensor.get()
    return np.asarray(tensor.numpy() if hasattr(tensor, "numpy") else tensor, np.float32)


@pytest.mark.parametrize("device", DEVICES, indirect=True)
@pytest.mark.parametrize("library", ["numpy", "torch", "cupy", "paddle"])
def test_a_consumer_shares_the_memory_and_keeps_it(
    videos: dict[str, VideoIndex], device: str, library: str, request: pytest.FixtureRequest
) -> None:
    """Every batch of four epochs is held: none is overwritten by a later one."""
    if not find_spec(library):
        pytest.skip(f"{library} is not installed")
    if (library == "numpy" and device != "cpu") or (library == "cupy" and device == "cpu"):
        pytest.skip(f"{library} has no tensors there")
    if library == "paddle" and device != "cpu":
        request.getfixturevalue("paddle_gpu")
    held, places = [], set()
    with load(videos[device], "dali", device) as loader:
        for number in range(4):
            for batch in loader.epoch(number):
                expected = on_host(batch.clips)
                tensor, place = as_tensor(library, batch.clips, device)
                held.append((tensor, expected))
                places.add(place)
    assert len(places) == len(held) == 12
    for tensor, expected in held:
        assert np.array_equal(as_array(library, tensor), expected)


@pytest.mark.gpu
def test_a_tensor_let_go_while_it_is_read_is_read_whole(videos: dict[str, VideoIndex], gpu: str) -> None:
    """Work is queued on the consumer's stream and the batch let go of; DALI must not write there before it is done."""
    torch = pytest.importorskip("torch", reason="no PyTorch to consume batches")
    if not torch.cuda.is_available():
        pytest.skip("this PyTorch sees no GPU")
    sums, expected = [], []
    stream = torch.cuda.Stream()
    with load(videos[gpu], "pyav", gpu) as loader, torch.cuda.stream(stream):
        for number in range(30):
            for batch in loader.epoch(number):
                expected.append(float(on_host(batch.clips).astype(np.float64).sum()))
                clips = torch.from_dlpack(batch.clips)
                torch.cuda._sleep(20_000_000)  # the stream is busy for a while before it reads
                sums.append(clips.double().sum())
                del clips, batch
    assert np.allclose([float(value) for value in sums], expected, rtol=1e-9)


@pytest.mark.parametrize("device", DEVICES, indirect=True)
@pytest.mark.parametrize("train", [True, False])
def test_a_damaged_file_is_one_bad_clip_and_nothing_else_changes(tmp_path: Path, device: str, train: bool) -> None:
    codec, suffix = CODECS[device]
    (tmp_path / "v" / "a").mkdir(parents=True)
    for number in range(8):
        write_stamped_video(tmp_path / "v" / "a" / f"{number}.{suffix}", codec=codec, num_frames=20, size=(176, 144))
    index = VideoIndex.build(tmp_path / "v", workers=0, val_fraction=0.0)
    whole = epochs(index, "dali", device, train=train)
    path = tmp_path / "v" / "a" / f"5.{suffix}"
    content, status, table = bytearray(path.read_bytes()), path.stat(), index[5].packets
    for offset, size in zip(table.offset.tolist(), table.size.tolist(), strict=True):
        content[offset : offset + size] = np.random.default_rng(offset).bytes(size)
    path.write_bytes(content)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    found = epochs(index, "dali", device, train=train)
    assert [bad.video_id for batch in found for bad in batch.bad] == [5] * 4
    for a, b in zip(found, whole, strict=True):
        good = a.video_ids != 5
        assert a.is_real.tolist() == good.tolist()
        assert np.array_equal(on_host(a.clips)[good], on_host(b.clips)[good])


def used_mib(device: str) -> float:
    """GPU memory in use, of all processes; host memory of this one on the CPU."""
    if device == "cpu":
        pages = int(Path("/proc/self/statm").read_text().split()[1])
        return pages * 4096 / 2**20
    cuda = ctypes.CDLL("libcuda.so.1")
    free, total, context, handle = ctypes.c_size_t(), ctypes.c_size_t(), ctypes.c_void_p(), ctypes.c_int()
    assert cuda.cuDeviceGet(ctypes.byref(handle), 0) == 0
    assert cuda.cuDevicePrimaryCtxRetain(ctypes.byref(context), handle) == 0
    assert cuda.cuCtxPushCurrent_v2(context) == 0
    assert cuda.cuMemGetInfo_v2(ctypes.byref(free), ctypes.byref(total)) == 0
    cuda.cuCtxPopCurrent_v2(ctypes.byref(context))
    return (total.value - free.value) / 2**20


@pytest.mark.slow
@pytest.mark.parametrize(
    ("device", "batches"), [("cpu", 600), pytest.param("gpu:0", 5000, marks=pytest.mark.gpu)], indirect=["device"]
)
@pytest.mark.parametrize("decoder", ["dali", "hybrid"])
def test_nothing_leaks(videos: dict[str, VideoIndex], device: str, batches: int, decoder: str) -> None:
    small = PIXELS.model_copy(update={"size_px": 32})
    made, start = 0, 0.0
    with load(videos[device], decoder, device, augment=small) as loader:
        number = 0
        while made < batches:
            for _ in loader.epoch(number):
                made += 1
                if made == batches // 4:
                    start = used_mib(device)
            number += 1
        assert used_mib(device) - start < 64
    assert len(loader) == 3
    assert loader.statistics.clips == made * 4


@pytest.mark.gpu
def test_decoding_takes_no_more_memory_than_was_counted(tmp_path: Path, gpu: str) -> None:
    """Of 1080p, where it counts; what the first videos take, such as the context and DALI's kernels, is left out."""
    for number, size in enumerate([(176, 144), (1920, 1088)]):
        (tmp_path / str(number) / "a").mkdir(parents=True)
        for copy in range(4):
            path = tmp_path / str(number) / "a" / f"{copy}.avi"
            write_stamped_video(path, codec="mpeg4", num_frames=20, size=size)
    small, large = (VideoIndex.build(tmp_path / str(number), workers=0, val_fraction=0.0) for number in (0, 1))
    epochs(small, "dali", gpu)
    before = used_mib(gpu)
    epochs(large, "dali", gpu)
    used = used_mib(gpu) - before
    clips = 4 * clip_bytes((1088, 1920), (1088, 1088), 8)
    counted = (clips + sessions_bytes([("mpeg4", 1920, 1088)], 2)) / 2**20
    print(f"4 clips of 1920x1088 took {used:.0f} MiB of GPU memory; counted were {counted:.0f}")
    assert used < counted + 512


@pytest.mark.gpu
def test_the_gpu_is_what_it_says(gpu: str) -> None:
    """What stands in a report beside these tests: the card, and what its decoder takes."""
    driver, limits = probe_driver(), limits_of_device(gpu)
    print(
        f"{driver.gpus[0]}, driver {driver.version}; NVDEC through DALI: {', '.join(sorted(limits.codecs)) or 'none'}"
    )
    assert driver.gpus[0].arch >= 50
