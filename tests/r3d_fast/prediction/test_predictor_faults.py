from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import tiny
from clips import write_stamped_video
from faulty_reads import ALWAYS, FaultyReads

from pipelines.isolation.reserve import reserve
from r3d_fast.prediction.predictor import Predictor


@pytest.fixture
def videos(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """Three videos; the second one crashes the process that reads it."""
    names = [str(write_stamped_video(tmp_path / name, num_frames=30)) for name in ("a.avi", "bad.avi", "c.avi")]
    reserve(1).close()  # those that run already would not crash
    FaultyReads(tmp_path, monkeypatch).begin("bad.avi", "segv")
    yield names
    reserve(1).close()


def test_a_video_that_crashes_the_decoder_is_an_item_with_an_error(
    model: Path, videos: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    code, out, err = tiny.said(capsys, "predict", model, *videos, "--device", "cpu", "--json", "-")
    assert code == 3
    found = json.loads(out)
    items = found if isinstance(found, list) else found["predictions"]
    assert [item["video"] for item in items] == videos
    assert [bool(item["classes"]) for item in items] == [True, False, True]
    assert items[1]["error"] == "crashes the decoder: the process that read it was ended by SIGSEGV, twice"
    assert "Traceback" not in err


def test_a_video_that_crashes_the_decoder_has_a_timeline_with_an_error(model: Path, videos: list[str]) -> None:
    moments = list(Predictor(model, device="cpu").timeline(videos))
    errors = {moment.video: moment.error for moment in moments}
    assert list(errors) == videos
    assert errors[videos[0]] is None
    assert errors[videos[2]] is None
    assert errors[videos[1]] == "crashes the decoder: the process that read it was ended by SIGSEGV"


def test_a_decoding_process_that_dies_is_told_by_the_path_that_the_user_gave(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("a.avi", "bad.avi"):
        write_stamped_video(tmp_path / name, num_frames=30)
    faults = FaultyReads(tmp_path, monkeypatch)
    arguments = ("predict", model.absolute(), "a.avi", "bad.avi", "--device", "cpu")
    faults.begin("/bad.avi", "segv", times=0, after=ALWAYS)
    assert tiny.call(*arguments, cwd=tmp_path).returncode == 0
    reads = faults.count
    faults.begin("/bad.avi", "segv", after=reads - 1)  # the last one is of the process that decodes
    done = tiny.call(*arguments, "--json", "-", cwd=tmp_path)
    assert done.returncode == 3, done.stderr
    died = "warning: a decoding process was ended by SIGSEGV with bad.avi: another one makes its clips again"
    reason = "crashes the decoder: the process that read it was ended by SIGSEGV, three times"
    lines = done.stderr.splitlines()
    assert lines.count(died) == 3
    assert f"bad.avi: error: {reason}" in lines
    assert [item["error"] for item in json.loads(done.stdout)] == [None, reason]
    assert "r3d-fast-" not in done.stderr.replace("r3d-fast: ", "")  # no temporary folder
    assert "quarantine" not in done.stderr  # which would be deleted with the folder
