from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path
from threading import Thread
from typing import Any

import numpy as np
import pytest
from clips import write_stamped_video
from faulty_server import FaultyServer, serving
from senders import Sender
from waiting import wait_until

from pipelines.containers.live_source import LiveSource, live_source
from pipelines.errors import VideoError
from pipelines.isolation.reserve import Reserve, reserve
from pipelines.live import distant_live
from pipelines.live.distant_live import DistantLive
from pipelines.live.live_sequence import CUT, LiveSequence

FRAMES = 60
LIMITS: dict[str, Any] = {"open_seconds": 20.0, "read_seconds": 10.0}


@pytest.fixture(scope="module")
def video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("live") / "v.ts"
    return write_stamped_video(path, num_frames=FRAMES, codec="h264", gop=12, container="mpegts")


@pytest.fixture
def kept() -> Iterator[Reserve]:
    """The one process that reads, so that a test can end or stop it."""
    kept = reserve(1)
    yield kept
    kept.close()


def source_of(sender: Sender) -> LiveSource:
    source = live_source(sender.address)
    assert source is not None
    return source


def test_frames_and_the_end_are_those_of_a_live_sequence(video: Path) -> None:
    wanted: list[Any] = []
    with (
        Sender(video, parts=[FRAMES], pace=0) as sender,
        LiveSequence(source_of(sender), **LIMITS) as here,
        pytest.raises(VideoError, match="cut: the sender ended the connection") as cut,
    ):
        wanted.extend((shown.seconds, here.pixels(shown.frame).copy()) for shown in here)
    found: list[Any] = []
    with Sender(video, parts=[FRAMES], pace=0) as sender, DistantLive(source_of(sender), **LIMITS) as there:
        with pytest.raises(VideoError, match="cut: the sender ended the connection") as same:
            found.extend((number, shown.seconds, shown.pixels()) for number, shown in enumerate(there))
        assert (there.fps, there.is_file) == (here.fps, here.is_file)
    assert cut.value.reason == same.value.reason == CUT
    assert [number for number, *_ in found] == list(range(FRAMES))
    assert [seconds for _, seconds, _ in found] == [seconds for seconds, _ in wanted]
    assert all(np.array_equal(mine, other) for (*_, mine), (_, other) in zip(found, wanted, strict=True))


@pytest.mark.parametrize(
    ("sent", "text"),
    [
        (signal.SIGSEGV, "crashes the decoder: the process that read it was ended by SIGSEGV"),
        (signal.SIGSTOP, "hangs the decoder: nothing was read or decoded for 1 s, and its process was ended"),
    ],
)
def test_a_stream_that_ends_or_blocks_its_process_is_an_error(
    video: Path, kept: Reserve, sent: signal.Signals, text: str
) -> None:
    with (
        Sender(video, parts=[FRAMES], pace=0, until=lambda: 1.0) as sender,
        DistantLive(source_of(sender), **LIMITS, stall_seconds=1.0) as live,
    ):
        frames = iter(live)
        shown = next(frames)
        (pid,) = kept._lent
        os.kill(pid, sent)
        with pytest.raises(VideoError) as caught:
            shown.pixels()
        with pytest.raises(VideoError) as again:  # so that whoever goes on with the frames is told, too
            next(frames)
    assert str(caught.value) == str(again.value) == f"{sender.address}: {text}"
    assert not Path(f"/proc/{pid}").exists()


def test_stdin_is_waited_for_and_a_silence_is_no_hang(video: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Stdin gives the second half when the process, which waits for it, was looked at thrice."""
    looks: list[int] = []
    real = distant_live.is_at_work
    monkeypatch.setattr(distant_live, "is_at_work", lambda pid: bool(looks.append(pid)) or real(pid))
    data = video.read_bytes()
    ours, theirs = os.pipe()
    before = os.dup(0)
    os.dup2(ours, 0)
    os.close(ours)

    def write() -> None:
        with os.fdopen(theirs, "wb", buffering=0) as file:
            file.write(data[: len(data) // 2])
            wait_until(lambda: len(looks) >= 3, "to be waited for")
            file.write(data[len(data) // 2 :])

    writer = Thread(target=write)
    writer.start()
    try:
        with DistantLive(LiveSource("pipe:0", "stdin", waits=True), **LIMITS, stall_seconds=0.5) as live:
            count = sum(1 for _ in live)
    finally:
        os.dup2(before, 0)
        os.close(before)
        writer.join()
    assert count == FRAMES
    assert live.is_file


@pytest.mark.parametrize(
    "form",
    ["#EXTM3U|#EXT-X-TARGETDURATION:5|#EXTINF:5,|{}|#EXT-X-ENDLIST|", "ffconcat version 1.0|file {}|"],
)
def test_a_list_that_a_server_sends_opens_no_file_of_this_machine(form: str, tmp_path: Path) -> None:
    path = write_stamped_video(tmp_path / "a.mkv")
    for name in (str(path), f"file://{path}", f"file:{path}"):
        with serving(FaultyServer({"/list": form.replace("|", "\n").format(name).encode()})) as server:
            source = live_source(f"{server.url}/list")
            assert source is not None
            with pytest.raises(VideoError), DistantLive(source, open_seconds=5.0, read_seconds=5.0) as video:
                list(video)
            assert server.requests
