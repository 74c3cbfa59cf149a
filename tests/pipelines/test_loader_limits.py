"""What the loader gets along with: few open files, a tiny /dev/shm; and what it must not do: grow."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from clips import write_classes

from pipelines.index.video_index import VideoIndex

ROOT = Path(__file__).resolve().parents[2]
COUNT = """
import contextlib, os, sys, numpy, pipelines as p
from pathlib import Path
index = p.VideoIndex.open(sys.argv[1])
spec = p.LoaderSpec(batch_size=int(sys.argv[2]), workers=2, prefetch=int(sys.argv[3]))
with p.ClipLoader(index, loader=spec, split=None, train=True) as loader:
    total = sum(float(numpy.from_dlpack(batch.clips).sum()) for _ in range(2) for batch in loader)
    for pid in os.getpid(), *loader.worker_pids:
        held = Path(f"/proc/{pid}/maps").read_text().splitlines()
        for link in Path(f"/proc/{pid}/fd").iterdir():
            with contextlib.suppress(FileNotFoundError):  # a video that was just closed
                held.append(os.readlink(link))
        assert not [name for name in held if "/dev/shm/" in name and "(deleted)" not in name], held
print(repr(total))
"""


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory) -> VideoIndex:
    root = tmp_path_factory.mktemp("limits") / "videos"
    return VideoIndex.build(write_classes(root, 16), val_fraction=0.25, workers=0)


def run(command: list[str], script: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.run(
        [*command, sys.executable, "-W", "error", "-c", script, *map(str, arguments)],
        env=environment, capture_output=True, text=True, timeout=120,
    )  # fmt: skip


def test_nothing_lies_in_dev_shm_even_where_it_is_tiny(index: VideoIndex) -> None:
    """Slots of 16 x 5 clips take 48 MB here and all of /dev/shm has 1 MB; the clips are the same.

    What counts is what the loader's own processes hold there: other programs use the folder too.
    """
    here = run([], COUNT, index.path, 16, 4)
    assert here.returncode == 0, here.stderr
    mount = ["unshare", "--mount", "sh", "-c", 'mount -t tmpfs -o size=1m tmpfs /dev/shm && exec "$@"', "sh"]
    if shutil.which("unshare") is None or subprocess.run([*mount, "true"], capture_output=True).returncode:
        return  # mounting needs rights; that nothing of ours lies in /dev/shm has been seen
    tiny = run(mount, COUNT, index.path, 16, 4)
    assert tiny.returncode == 0, tiny.stderr
    assert tiny.stdout == here.stdout


def test_works_with_256_open_files(index: VideoIndex) -> None:
    limit = ["sh", "-c", 'ulimit -n 256 && exec "$@"', "sh"]
    limited = run(limit, COUNT, index.path, 4, 2)
    assert limited.returncode == 0, limited.stderr
    assert limited.stdout == run([], COUNT, index.path, 4, 2).stdout


@pytest.mark.slow
@pytest.mark.parametrize("resize", ["decoder", "graph"])
def test_memory_and_open_files_stay_over_thousands_of_clips(index: VideoIndex, resize: str) -> None:
    """Below 1 MB for 1,000 clips in every process; `bench loader soak` measures the same over more clips."""
    paths = os.pathsep.join([str(ROOT), str(ROOT / "tests" / "support")])
    command = [sys.executable, "-m", "soak.many_clips", str(index.path), resize]
    done = subprocess.run(
        command, env={**os.environ, "PYTHONPATH": paths}, capture_output=True, text=True, check=False, timeout=600
    )
    assert done.returncode == 0, done.stderr
    grown, opened = json.loads(done.stdout)
    middle, last = np.array(grown[10:30]).min(axis=0), np.array(grown[30:50]).min(axis=0)
    assert (last - middle < 20 * 160 / 1000).all()
    own, *workers = np.array(opened).T
    assert (np.diff(own) <= 0).all()  # what other tests left behind may be closed meanwhile
    for counts in workers:
        assert counts.max() <= counts.min() + 1  # the video that it just reads
