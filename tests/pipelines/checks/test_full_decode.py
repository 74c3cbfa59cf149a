from __future__ import annotations

import os
from pathlib import Path
from random import Random

import av
import clips
import pytest

from pipelines.checks.full_decode import Decoded, IndexedFile, decode_all
from pipelines.video.probe import probe_video

REPO = Path(__file__).resolve().parents[3]


def some_files(folder: Path, count: int) -> list[IndexedFile]:
    for number in range(count):
        clips.write_stamped_video(folder / f"{number}.avi", num_frames=10 + number, size=(192, 128))
    return [IndexedFile.of(probe_video(f"{number}.avi", root=folder)) for number in range(count)]


def in_processes(folder: Path, monkeypatch: pytest.MonkeyPatch, what: str) -> None:
    """Have the processes that decode do `what`, which is Python, with the file 1.avi."""
    (folder / "sitecustomize.py").write_text(
        "import os, signal, time\n"
        "import pipelines.checks.full_decode as module\n"
        "real = module.decode_fully\n"
        "def stands_before(path, **options):\n"
        "    if path.endswith('/1.avi'):\n"
        f"        {what}\n"
        "    return real(path, **options)\n"
        "module.decode_fully = stands_before\n"
    )
    monkeypatch.setenv("PYTHONPATH", f"{folder}:{REPO}")


def test_each_file_is_decoded_in_order_by_any_number_of_processes(tmp_path: Path) -> None:
    files = some_files(tmp_path, 3)
    expected = [Decoded(f"{number}.avi", 10 + number) for number in range(3)]
    for workers in (0, 1, 2):
        steps: list[int] = []
        assert decode_all(files, tmp_path, workers=workers, done=lambda s=steps: s.append(1)) == expected
        assert len(steps) == 3


@pytest.mark.parametrize(
    ("what", "reason"),
    [("os.kill(os.getpid(), signal.SIGSEGV)", "crashes the decoder"), ("time.sleep(3600)", "hangs the decoder")],
)
def test_a_file_that_crashes_or_hangs_is_named_and_the_others_are_decoded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, what: str, reason: str
) -> None:
    files = some_files(tmp_path, 4)
    in_processes(tmp_path, monkeypatch, what)
    found = decode_all(files, tmp_path, workers=1, stall_seconds=2.0)
    assert [item.reason for item in found] == ["", reason, "", ""]
    assert found[1].is_proven
    assert [item.frames for item in found] == [10, 0, 12, 13]


def test_damaged_frames_are_counted_as_the_decoder_marks_them(tmp_path: Path) -> None:
    some_files(tmp_path, 1)
    data, draw = bytearray((tmp_path / "0.avi").read_bytes()), Random(1)
    begin, end = data.find(b"movi"), data.rfind(b"idx1")
    for _ in range(3):
        data[draw.randrange((begin + end) // 2, end)] = draw.randrange(256)
    (tmp_path / "0.avi").write_bytes(data)
    with av.open(str(tmp_path / "0.avi")) as container:
        marked = [frame.is_corrupt for frame in container.decode(video=0)]
    (found,) = decode_all([IndexedFile.of(probe_video("0.avi", root=tmp_path))], tmp_path, workers=0)
    assert (found.frames, found.corrupt, found.reason) == (len(marked), sum(marked), "")
    assert found.corrupt > 0


def test_what_lies_in_the_place_of_a_file_is_named_and_not_proven(tmp_path: Path) -> None:
    files = some_files(tmp_path, 3)
    for number in (0, 1):
        (tmp_path / f"{number}.avi").unlink()
    os.mkfifo(tmp_path / "0.avi")
    (tmp_path / "1.avi").mkdir()
    found = decode_all(files, tmp_path, workers=1)
    assert [item.reason for item in found] == ["not a regular file (FIFO)", "not a regular file (folder)", ""]
    assert found[0].detail == "put the video back, or index the data set again"
    assert not any(item.is_proven for item in found)


def test_only_what_the_bytes_prove_is_proven(tmp_path: Path) -> None:
    file, other, gone = some_files(tmp_path, 3)
    (tmp_path / "2.avi").unlink()
    (tmp_path / "1.avi").write_bytes((tmp_path / "1.avi").read_bytes() + b"\0")
    found = decode_all([file._replace(num_frames=11), other, gone], tmp_path, workers=0)
    assert [(item.reason, item.is_proven) for item in found] == [
        ("lacks frames", True),
        ("changed since it was indexed", True),
        ("can't be read", False),
    ]
    assert found[0].detail == "10 frames decode, 11 were counted"
