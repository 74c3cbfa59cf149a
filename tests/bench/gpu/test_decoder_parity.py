"""The table of videos of which DALI's decoder gives PyAV's frames, made on the CPU."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from bench_process import REPO
from clips import write_classes

from bench.gpu import decoder_parity
from bench.gpu.decoder_parity import FAILED, REFUSED, RIGHT, UNREADABLE, WRONG
from bench.gpu.findings import Found
from bench.gpu.page import page
from bench.videos.odd_sizes import OddVideo
from pipelines.dali.routing import limits_of_device
from pipelines.errors import DataError, ExitCode
from pipelines.index.video_index import VideoIndex


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """12 of MJPEG, which DALI decodes on the CPU, 2 of MPEG-4, which it doesn't, and an empty file."""
    root = write_classes(tmp_path_factory.mktemp("parity") / "videos", 12, codec="mjpeg", num_frames=20)
    write_classes(root / "other", 2, classes=("z",), num_frames=20)
    (root / "other" / "z" / "empty.avi").touch()
    return root


def test_as_a_process_it_writes_what_came_of_each_video(videos: Path, tmp_path: Path) -> None:
    file = tmp_path / "parity.json"
    command = [sys.executable, "-W", "error", "-m", "bench.gpu.decoder_parity", str(file), str(videos), "cpu", "200"]
    done = subprocess.run(command, cwd=REPO, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(file.read_text())
    assert (found["device"], found["at"]) == ("cpu", "")
    assert Counter(one["verdict"] for one in found["real"]) == {RIGHT: 12, REFUSED: 2, UNREADABLE: 1}
    assert {one["why"] for one in found["real"] if one["verdict"] == REFUSED} == {"DALI has no decoder for mpeg4 here"}
    verdicts = {one["video"]: one["verdict"] for one in found["made"]}
    assert all(found == (RIGHT if name[2:].startswith(("vp8", "vp9", "mjpeg")) else REFUSED)
               for name, found in verdicts.items())  # fmt: skip
    assert {one["multiple of 16"] for one in found["sessions"]} == {True, False}
    assert all(len(one["ms a clip"]) == 6 for one in found["sessions"])
    assert "real: 12 right, 2 refused" in done.stdout.replace("2 refused, 12 right", "12 right, 2 refused")


@pytest.fixture
def one_video_made(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decoder_parity, "odd_videos", lambda: iter([OddVideo("mjpeg", 160, 128)]))


@pytest.mark.usefixtures("one_video_made")
def test_wrong_frames_are_named(videos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def wrong(record: Any, root: str, device: str) -> str:
        return f"{record.path}: frame 3 comes where 2 is wanted" if record.path.endswith("v1.avi") else ""

    monkeypatch.setattr(decoder_parity, "differing_frames", wrong)
    found = decoder_parity.check_parity(videos, "cpu", 200, lambda _: None)
    reasons = {one["why"] for one in found["real"] if one["verdict"] == WRONG}
    assert reasons == {"frame 3 comes where 2 is wanted"}


# DALI is given MPEG-4, which it can't decode on a CPU.
UNABLE = (
    "import sys\nfrom dataclasses import replace\nfrom bench.gpu import decoder_parity as parity\n"
    "from bench.videos.odd_sizes import OddVideo\n"
    "parity.odd_videos = lambda: iter([OddVideo('mpeg4', 160, 128)])\n"
    "able = parity.limits_of_device\n"
    "parity.limits_of_device = lambda device: replace(able(device), codecs=frozenset({'mpeg4', 'mjpeg'}))\n"
    "parity._main(*sys.argv[1:])\n"
)


@pytest.mark.parametrize(("codecs", "code"), [(("mpeg4",), ExitCode.ENVIRONMENT), (("mpeg4", "mjpeg"), ExitCode.OK)])
def test_a_decoder_that_fails_gives_no_wrong_frames(codecs: tuple[str, ...], code: int, tmp_path: Path) -> None:
    for codec in codecs:
        data = write_classes(tmp_path / "data", 2, classes=(codec,), codec=codec, num_frames=20)
    command = [sys.executable, "-c", UNABLE, str(tmp_path / "parity.json"), str(data), "cpu", "200"]
    environment = {**os.environ, "PYTHONPATH": str(REPO)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == code, done.stderr
    parity: dict[str, Any] = json.loads((tmp_path / "parity.json").read_text())
    counted = Counter(one["verdict"] for one in parity["real"])
    assert counted == ({FAILED: 2} if code else {FAILED: 2, RIGHT: 2})
    text = " ".join(page(Found({"name": "", "engines": 0}, {}, {"parity": parity})).split())
    if code:
        assert done.stdout.splitlines()[-1].startswith("DALI's decoder on the CPU could not be used: ")
        assert text.count("Failed to create video decoder") == 1
        assert "could not be used" in text
    else:
        assert "- FAILED, so not compared: 2 because " in text
    assert "WRONG:" not in text


@pytest.mark.usefixtures("one_video_made")
def test_what_a_crash_leaves_names_the_video(videos: Path, tmp_path: Path) -> None:
    file = tmp_path / "parity.json"
    code = (
        "import os, sys\nfrom bench.gpu import decoder_parity as parity\nfrom bench.videos.odd_sizes import OddVideo\n"
        "parity.odd_videos = lambda: iter([OddVideo('mjpeg', 160, 128)])\n"
        "good, seen = parity.differing_frames, []\n"
        "def differing_frames(*arguments):\n"
        "    seen.append(1)\n"
        "    return os.abort() if len(seen) > 4 else good(*arguments)\n"
        "parity.differing_frames = differing_frames\n"
        "parity._main(*sys.argv[1:])\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(REPO)}
    command = [sys.executable, "-c", code, str(file), str(videos), "cpu", "200"]
    done = subprocess.run(command, env=environment, capture_output=True, check=False, timeout=120)
    assert done.returncode == -6
    found = json.loads(file.read_text())
    assert len(found["made"]) + len(found["real"]) >= 4
    assert found["at"].endswith(".avi")
    assert found["at"] not in {one["video"] for one in found["real"]}


@pytest.mark.usefixtures("one_video_made")
def test_videos_are_spread_over_all(videos: Path) -> None:
    found = decoder_parity.check_parity(videos, "cpu", 4, lambda _: None)
    assert len(found["real"]) == 4
    assert {one["video"].split("/")[0] for one in found["real"]} >= {"a", "b"}


@pytest.mark.usefixtures("one_video_made")
def test_no_videos(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    kept: list[Any] = []
    with pytest.raises(DataError, match="no video"):
        decoder_parity.check_parity(tmp_path / "empty", "cpu", 4, lambda found: kept.append(found["at"]))
    assert kept[-1] == ""  # none of those that were made is to blame


def test_a_file_that_is_gone_is_unreadable(tmp_path: Path) -> None:
    root = write_classes(tmp_path / "v", 1, classes=("a",), codec="mjpeg", num_frames=20)
    index = VideoIndex.build(root, workers=0, val_fraction=0.0)
    record = index[0]
    (root / record.path).unlink()
    verdict = decoder_parity.judge(record, limits_of_device("cpu"), str(root), "cpu")
    assert verdict.verdict == UNREADABLE
