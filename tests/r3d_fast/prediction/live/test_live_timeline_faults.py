"""A live stream that crashes the decoder: it is named, and where it can be connected to again, it goes on."""

from __future__ import annotations

import math
import os
import signal
import subprocess
from itertools import pairwise
from pathlib import Path

import clips
import pytest
import tiny
from faulty_reads import FaultyReads
from senders import Sender

from r3d_fast import Predictor


def test_stdin_that_crashes_the_decoder_is_told_in_one_line(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bad = clips.write_stamped_video(tmp_path / "bad.ts", num_frames=50, codec="h264", container="mpegts")
    FaultyReads(tmp_path, monkeypatch).begin("bad.ts", "segv")
    with bad.open("rb") as file:
        command = tiny.command("predict", model, "pipe:", "--timeline")
        done = subprocess.run(command, cwd=tiny.REPO, stdin=file, capture_output=True, text=True, check=False)
    assert done.returncode == 3
    first, *others = done.stderr.splitlines()
    assert first == "stdin: error: crashes the decoder: the process that read it was ended by SIGSEGV"
    assert len(others) == 1
    assert done.stdout == ""


def test_a_camera_whose_process_crashes_is_connected_to_again(model: Path, tmp_path: Path) -> None:
    video = clips.write_stamped_video(tmp_path / "v.mp4", num_frames=150, codec="h264", gop=12)
    predictor = Predictor(model, device="cpu")
    said: list[str] = []
    found, until = [], 2.4
    with Sender(video, parts=[75, 75], pace=0, until=lambda: until) as sender:
        for moment in predictor.live(sender.address, reconnect=1.5, say=said.append):
            if not found:
                (pid,) = predictor._reserve._lent
                os.kill(pid, signal.SIGSEGV)
                until = math.inf
            found.append(moment)
    crash = "crashes the decoder: the process that read it was ended by SIGSEGV"
    assert said[0] == f"{sender.address}: {crash}; connecting again, for up to 1.5 s"
    assert said[1].startswith(f"{sender.address}: connected again after ")
    assert any(other.start > one.end for one, other in pairwise(found)), "a gap"
    assert found[-1].error == "can't be opened: Connection refused"
