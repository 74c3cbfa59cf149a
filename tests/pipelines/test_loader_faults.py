from __future__ import annotations

import json
import logging
import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from loading import (
    ROOT,
    SMALL,
    children,
    content,
    make,
    pixels,
)
from waiting import PATIENCE, is_asleep, is_gone, wait_until

from pipelines.errors import EnvironmentProblem
from pipelines.index.video_index import VideoIndex
from pipelines.loader import Batch
from pipelines.specs import AugmentSpec

# Bad videos


def delete(path: Path) -> None:
    path.unlink()


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:9000])


def rewrite(path: Path) -> None:
    """One other byte, of the same size; at another time, or nobody would look."""
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    os.utime(path, ns=(0, 0))


def rot(path: Path) -> None:
    """Zeros from the first packets on; size and time as before."""
    status = path.stat()
    data = path.read_bytes()
    path.write_bytes(data[:3000] + bytes(len(data) - 3000))
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


@pytest.mark.parametrize("resize", ["decoder", "graph"])
@pytest.mark.parametrize(
    ("damage", "workers", "reason"),
    [
        (delete, 1, "can't be read: No such file or directory"),
        (cut, 0, "changed since it was indexed: {size} bytes then, 9000 now; index the data set again"),
        (rewrite, 0, "changed since it was indexed: the same size, but other bytes; index the data set again"),
        (rot, 0, "does not decode|frames missing"),
    ],
    ids=["deleted", "cut", "rewritten", "rotten"],
)
@pytest.mark.parametrize("train", [True, False], ids=["train", "eval"])
def test_bad_video_is_a_blank_row_with_its_reason(
    index: VideoIndex, copied: VideoIndex, damage: Any, workers: int, reason: str, train: bool,
    resize: Any,
) -> None:  # fmt: skip
    record = copied[7]
    path = Path(copied.root) / record.path
    damage(path)
    augment = AugmentSpec(size_px=32, resize=resize)
    with make(index, train=train, augment=augment) as loader:
        intact = list(loader)
    with make(copied, train=train, workers=workers, augment=augment) as loader:
        batches = list(loader)
    found = [bad for batch in batches for bad in batch.bad]
    assert [bad.video_id for bad in found] == [7]
    assert found[0].reason.startswith(f"{path}: ")
    assert any(text in found[0].reason for text in reason.format(size=record.size).split("|")), found[0].reason
    blank = -np.array(SMALL.mean) / np.array(SMALL.std)
    for a, b in zip(batches, intact, strict=True):
        good = a.video_ids != 7
        assert a.is_real.tolist() == good.tolist()
        assert (a.video_ids.tolist(), a.labels.tolist()) == (b.video_ids.tolist(), b.labels.tolist())
        assert np.array_equal(pixels(a)[good], pixels(b)[good])
        assert len(a.bad) == (~good).sum()
        if not good.all():
            assert np.abs(pixels(a)[~good] - blank.reshape(3, 1, 1, 1)).max() < 1e-5


# Workers that die


def all_of(make_batches: Iterator[Batch]) -> list[Batch]:
    """All batches; fails where they never end."""
    batches: list[Batch] = []
    thread = threading.Thread(target=lambda: batches.extend(make_batches), daemon=True)
    thread.start()
    thread.join(PATIENCE)
    assert not thread.is_alive(), f"no end; {len(batches)} batches"
    return batches


@pytest.mark.parametrize("when", ["at work", "asleep", "found dead"])
def test_killed_worker_is_replaced_and_nothing_is_lost(
    index: VideoIndex, caplog: pytest.LogCaptureFixture, when: str
) -> None:
    with make(index, batch_size=2) as loader:
        undisturbed = content([*loader, *loader])
    with make(index, workers=2, batch_size=2) as loader:
        batches = iter(loader)
        made = [next(batches), next(batches)]
        old = children()
        if when != "at work":
            wait_until(lambda: all(map(is_asleep, old)))
        os.kill(old[0], signal.SIGKILL)
        if when == "found dead":
            wait_until(lambda: is_gone(old[0]))
        with caplog.at_level(logging.WARNING, "pipelines.workers.pool"):
            made += all_of(batches)
            made += all_of(iter(loader))
        assert content(made) == undisturbed
        assert set(old) & set(children()) == {old[1]}
        assert len(children()) == 2
        assert children() == sorted(loader.worker_pids)
    assert children() == []
    (record,) = caplog.records
    assert re.fullmatch(
        r"a decoding process was ended by SIGKILL( with \S+)?: another one makes its clips again", record.getMessage()
    )


def test_hanging_worker_is_replaced_and_nothing_is_lost(index: VideoIndex, caplog: pytest.LogCaptureFixture) -> None:
    with make(index, batch_size=2) as loader:
        undisturbed = content([*loader, *loader])
    with make(index, workers=2, batch_size=2, timeout_seconds=2.0) as loader:
        batches = iter(loader)
        made = [next(batches)]
        old = children()
        os.kill(old[1], signal.SIGSTOP)
        with caplog.at_level(logging.WARNING, "pipelines.workers.pool"):
            made += all_of(batches)
            made += all_of(iter(loader))
        assert content(made) == undisturbed
        assert set(old) & set(children()) == {old[0]}
    (record,) = caplog.records
    waited = "a decoding process gave no clip for 2 s and was ended while it waited for data with "
    assert record.getMessage().startswith(waited)


@pytest.mark.parametrize("kill_after", [2, 3])
def test_worker_killed_near_the_end_of_an_evaluation(index: VideoIndex, kill_after: int) -> None:
    with make(index, batch_size=4, train=False) as loader:
        undisturbed = content([*loader, *loader])
    with make(index, workers=2, batch_size=4, train=False) as loader:
        batches = iter(loader)
        made = [next(batches) for _ in range(kill_after)]
        # With 2 of 3 given, the last one lies ready, the end of the source does not.
        wait_until(lambda: all(map(is_asleep, children())))
        os.kill(children()[0], signal.SIGKILL)
        made += all_of(batches)
        made += all_of(iter(loader))
        assert content(made) == undisturbed


def test_workers_that_keep_dying_end_the_epoch(index: VideoIndex, caplog: pytest.LogCaptureFixture) -> None:
    stop = threading.Event()

    def kill_all() -> None:
        while not stop.wait(0.05):
            for pid in children():
                os.kill(pid, signal.SIGKILL)

    killer = threading.Thread(target=kill_all)
    with make(index, workers=1) as loader:
        batches = iter(loader)
        next(batches)
        killer.start()
        try:
            wait_until(lambda: not children())
            with (
                caplog.at_level(logging.WARNING, "pipelines.workers.pool"),
                pytest.raises(
                    EnvironmentProblem,
                    match=r"^a decoding process was ended by SIGKILL while it started; see its output above; "
                    "to see where it happens, set loader.workers=0$",
                ),
            ):
                list(loader.epoch(5))
        finally:
            stop.set()
            killer.join()
        assert children() == []
    assert len(caplog.records) == 4  # the first one worked


def test_script_needs_no_main_guard(index: VideoIndex, tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(
        "import pipelines as p\n"
        f"index = p.VideoIndex.open({json.dumps(str(index.path))})\n"
        "print(len(list(p.ClipLoader(index, loader=p.LoaderSpec(batch_size=2, workers=1)))))\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    result = subprocess.run([sys.executable, script], env=environment, capture_output=True, text=True, timeout=60)
    assert (result.returncode, result.stdout, result.stderr) == (0, "4\n", "")


def test_killed_program_leaves_no_workers_behind(index: VideoIndex) -> None:
    code = (
        "import os, signal, sys, pipelines as p\n"
        "spec = p.LoaderSpec(batch_size=2, workers=2)\n"
        "loader = p.ClipLoader(p.VideoIndex.open(sys.argv[1]), loader=spec)\n"
        "next(iter(loader))\n"
        "print(*loader.worker_pids, flush=True)\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", code, str(index.path)]
    result = subprocess.run(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, timeout=60)
    assert result.returncode == -signal.SIGKILL
    workers = [Path("/proc") / pid / "cmdline" for pid in result.stdout.decode().split()]
    assert len(workers) == 2
    wait_until(
        lambda: not any(w.is_file() and b"pipelines.workers.worker" in w.read_bytes() for w in workers),
        "the end of the workers after that of the program",
    )
