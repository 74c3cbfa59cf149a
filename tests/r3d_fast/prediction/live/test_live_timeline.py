from __future__ import annotations

import json
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterable
from itertools import pairwise
from pathlib import Path
from typing import Any

import av
import clips
import numpy as np
import pytest
import tiny
from camera import Camera
from faulty_server import Fault, FaultyServer, serving
from PIL import Image
from senders import Sender
from timed_video import write_long
from waiting import PATIENCE, children_of, is_asleep, wait_until

from pipelines.errors import UsageError
from r3d_fast import Predictor
from r3d_fast.prediction.timelines.events import events
from r3d_fast.prediction.timelines.moments import Moment

SECONDS = 4


@pytest.fixture(scope="module")
def video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A video of 4 s, whose frames change all the time."""
    folder = tmp_path_factory.mktemp("live")
    return clips.write_stamped_video(folder / "v.mp4", num_frames=25 * SECONDS, codec="h264", gop=12)


@pytest.fixture
def predictor(model: Path) -> Predictor:
    return Predictor(model, device="cpu")


def assert_same(found: list[Moment], wanted: list[Moment]) -> None:
    assert [(moment.start, moment.end, moment.error) for moment in found] == [
        (moment.start, moment.end, moment.error) for moment in wanted
    ]
    for mine, other in zip(found, wanted, strict=True):
        assert dict(mine.classes) == pytest.approx(dict(other.classes), abs=1e-4)


class Receipts:
    """Moments as they come, and when each came: by time.monotonic() and in seconds since 1970."""

    def __init__(self) -> None:
        self.moments: list[Moment] = []
        self.times: list[tuple[float, float]] = []

    def take(self, moments: Iterable[Moment]) -> None:
        for moment in moments:
            self.times.append((time.monotonic(), time.time()))
            self.moments.append(moment)

    def a_second_after(self) -> float:
        """The time in the video, in seconds, that is a second after the hop which is to come next."""
        return (self.moments[-1].end if self.moments else 0.0) + 1.0 + 1.0


def test_a_stream_is_labelled_as_its_file_and_each_hop_a_second_after_it_at_the_latest(
    predictor: Predictor, video: Path
) -> None:
    """The sender waits a second after each hop until that was labelled, and would wait for ever."""
    said: list[str] = []
    got, began = Receipts(), time.time()
    with Sender(video, parts=[25 * SECONDS], pace=0, until=got.a_second_after) as sender:
        got.take(predictor.live(sender.address, window=1.6, reconnect=0, say=said.append))
    assert got.moments[-1].error == "cut: the sender ended the connection"
    assert_same(got.moments[:-1], list(predictor.timeline(video, window=1.6)))
    first, second = (moment.at for moment in got.moments[:2])
    assert first is not None
    assert second is not None
    assert began <= first.timestamp() <= got.times[0][1]
    assert (second - first).total_seconds() == pytest.approx(1.0, abs=0.002)
    assert said == []


def test_a_camera_that_speaks_rtsp(predictor: Predictor, video: Path, tmp_path: Path) -> None:
    remux(video, tmp_path / "v.ts")
    said: list[str] = []
    got = Receipts()
    with Camera(tmp_path / "v.ts", until=got.a_second_after) as camera:
        address = f"rtsp://me:secret@127.0.0.1:{camera.port}/garden"
        got.take(predictor.live(address, reconnect=0, say=said.append))
    assert {moment.video for moment in got.moments} == {f"rtsp://me:***@127.0.0.1:{camera.port}/garden"}
    whole = [moment for moment in got.moments if moment.at is not None and moment.error is None]
    assert len(whole) >= SECONDS - 1
    assert {"DESCRIBE", "SETUP", "PLAY"} <= {method for method, _ in camera.asked}
    assert "TCP" in next(headers["transport"] for method, headers in camera.asked if method == "SETUP")
    assert said == []


def assert_time_went_on(got: Receipts, sender: Sender, number: int) -> None:
    """Assert that the clock of the source went on until its second connection, of which moment `number` is the first.

    Its first frame came after the second connection began to send, and before that moment was there. The clock began
    after the first connection did, and before the first moment was there. A hop has a second.
    """
    start = got.moments[number].start
    assert sender.sent[1] - got.times[0][0] - 1.0 <= start <= got.times[number][0] - sender.sent[0] + 1.0


def test_a_cut_is_told_and_the_source_goes_on_with_a_gap(predictor: Predictor, video: Path) -> None:
    said: list[str] = []
    got = Receipts()
    with Sender(video, parts=[50, 50]) as sender:
        got.take(predictor.live(sender.address, reconnect=1.5, say=said.append))
    name, found = sender.address, got.moments
    assert said[0] == f"{name}: cut: the sender ended the connection; connecting again, for up to 1.5 s"
    assert any(line.startswith(f"{name}: connected again after ") for line in said)
    assert found[-1].error == "can't be opened: Connection refused"
    gaps = [other.start - one.end for one, other in pairwise(found[:-1])]
    assert sorted(gaps)[:-1] == [0.0] * (len(gaps) - 1)
    assert len(found) >= 5
    # The time without a connection counts: the gap ends where the second connection was made.
    assert_time_went_on(got, sender, gaps.index(max(gaps)) + 1 if max(gaps) else 2)


def test_what_passes_while_ffmpeg_connects_again_counts_and_no_event_goes_on_across_a_cut(
    predictor: Predictor, video: Path
) -> None:
    """The second time the sender accepts the connection, but is silent for 3 s."""
    got, began = Receipts(), time.time()
    with Sender(video, parts=[50, 50], silent=[1.0, 3.0]) as sender:
        got.take(predictor.live(sender.address, reconnect=6, say=lambda _: None))
    found = got.moments
    del found[-1]  # the end of the source
    (number,) = [number for number, (one, other) in enumerate(pairwise(found)) if other.start > one.end + 1e-6]
    assert_time_went_on(got, sender, number + 1)
    assert found[0].at is not None
    assert began + 1.0 <= found[0].at.timestamp() <= got.times[0][1]
    cut = found[number].end
    seen = list(events(found, predictor.classes, threshold=0.01, merge_seconds=100.0))
    assert seen
    assert all(event.end <= cut or event.start > cut for event in seen)


def test_a_stream_sent_faster_than_it_was_filmed_loses_nothing(predictor: Predictor, video: Path) -> None:
    with Sender(video, parts=[25 * SECONDS], pace=0) as sender:
        found = list(predictor.live(sender.address, reconnect=0, say=pytest.fail))
    assert_same(found[:-1], list(predictor.timeline(video)))


def test_a_machine_that_is_too_slow_keeps_up_with_fewer_windows(
    predictor: Predictor, video: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    network, batches = predictor.network, 0
    real = type(network).__call__

    def slow(self: Any, given: Any) -> Any:
        nonlocal batches
        batches += 1
        time.sleep(0.7)
        return real(self, given)

    monkeypatch.setattr(type(network), "__call__", slow)
    said: list[str] = []
    with Sender(video, parts=[25 * SECONDS]) as sender:
        found = list(predictor.live(sender.address, hop=0.1, reconnect=0, say=said.append))
    assert [moment.start for moment in found[:-1]] == pytest.approx([k / 10 for k in range(10 * SECONDS)])
    assert batches < 12
    assert len(said) == 1
    assert "this machine computes fewer windows than one every 0.1 s" in said[0]


def test_stdin_may_be_the_video_and_has_its_end(predictor: Predictor, model: Path, video: Path, tmp_path: Path) -> None:
    wanted = list(predictor.timeline(video))
    remux(video, tmp_path / "v.ts")
    with (tmp_path / "v.ts").open("rb") as file:
        command = tiny.command("predict", model, "pipe:", "--timeline", "--json", "-")
        done = subprocess.run(command, cwd=tiny.REPO, stdin=file, capture_output=True, timeout=100, check=True)
    items = [json.loads(line) for line in done.stdout.splitlines()]
    assert [item["start"] for item in items] == [moment.start for moment in wanted]
    assert [item["video"] for item in items] == ["stdin"] * len(wanted)
    assert "at" not in items[0]
    for item, moment in zip(items, wanted, strict=True):
        named = {one["class"]: one["probability"] for one in item["classes"]}
        assert named == pytest.approx(dict(moment.classes), abs=1e-4)


def remux(source: Path, target: Path) -> None:
    """Write the packets of `source` into another container."""
    with av.open(str(source)) as one, av.open(str(target), "w") as other:
        stream = other.add_stream_from_template(one.streams.video[0])
        for packet in one.demux(video=0):
            if packet.size:
                packet.stream = stream
                other.mux(packet)


def test_a_file_at_an_address_has_its_end_and_survives_a_cut(predictor: Predictor, video: Path) -> None:
    with serving(FaultyServer({"/v.mp4": video.read_bytes()})) as server:
        server.faults["/v.mp4"].append(Fault(after=video.stat().st_size // 2))
        found = list(predictor.live(f"{server.url}/v.mp4", say=pytest.fail))
    assert len(server.requests) > 1
    assert_same(found, list(predictor.timeline(video)))
    assert found[0].at is None


def test_a_stream_over_http_is_live(predictor: Predictor, video: Path) -> None:
    with Sender(video, parts=[60], pace=4, http=True) as sender:
        found = list(predictor.live(sender.address + "/cam?user=x", reconnect=0))
    assert [moment.start for moment in found] == [0, 1, 2, 3]
    assert str(found[-1].error).startswith("cut: ")


def test_ctrl_c_ends_a_live_source_with_all_files_written(model: Path, video: Path, tmp_path: Path) -> None:
    files = ["--json", tmp_path / "e.json", "--csv", tmp_path / "e.csv", "--strip", tmp_path / "e.png"]
    with Sender(video, parts=[25 * SECONDS], pace=0, until=lambda: 2.4) as sender:
        command = tiny.command("predict", model, sender.address, "--events", "--threshold", "0.01", *files)
        with subprocess.Popen(command, cwd=tiny.REPO, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as child:
            wait_until(lambda: sender.frames == 60, "to take all frames")
            wait_until(lambda: is_asleep(child.pid, *children_of(child.pid)), "to wait for more frames")
            child.send_signal(signal.SIGINT)
            out, err = child.communicate(timeout=PATIENCE)
    assert (child.returncode, err) == (0, b"")
    items = json.loads((tmp_path / "e.json").read_text())
    assert len(items) == 8  # the classes, all of which reach so low a threshold
    assert {(item["start"], item["end"] >= 1) for item in items} == {(0, True)}
    assert len(out.splitlines()) == 8
    assert len((tmp_path / "e.csv").read_text().splitlines()) == 9
    with Image.open(tmp_path / "e.png") as strip:
        assert strip.width == 1600


def test_it_can_be_interrupted_while_a_source_is_silent(model: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        address = f"tcp://127.0.0.1:{listener.getsockname()[1]}"
        command = tiny.command("predict", model, address, "--timeline")
        with subprocess.Popen(command, cwd=tiny.REPO, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as child:
            listener.settimeout(60)
            connection, _ = listener.accept()
            wait_until(lambda: is_asleep(child.pid), "to wait for the source")
            child.send_signal(signal.SIGINT)
            out, err = child.communicate(timeout=PATIENCE)
            connection.close()
    assert (child.returncode, out, err) == (0, b"", b"")


def test_memory_does_not_grow_with_time(model: Path, tmp_path: Path) -> None:
    long = write_long(tmp_path / "l.ts", 5 * 60 * 25)
    code = (
        "import os, sys\n"
        "from pathlib import Path\n"
        "from r3d_fast import Predictor\n"
        "def peak(pid):\n"
        "    return int(Path(f'/proc/{pid}/status').read_text().partition('VmHWM:')[2].split()[0])\n"
        "for count, moment in enumerate(Predictor(sys.argv[1], device='cpu').live('pipe:'), 1):\n"
        "    if count % 60 == 30:\n"
        "        lists = [path.read_text() for path in Path('/proc/self/task').glob('*/children')]\n"
        "        children = [pid for text in lists for pid in text.split()]\n"
        "        print(count, peak(os.getpid()), max(map(peak, children)))\n"
    )
    with long.open("rb") as file:
        done = subprocess.run(
            [sys.executable, "-c", code, model], cwd=tiny.REPO, stdin=file, capture_output=True, text=True, check=True
        )
    counts, *both = np.array([line.split() for line in done.stdout.splitlines()], int).T
    assert counts.tolist() == [60 * minute + 30 for minute in range(5)]
    for peaks in both:  # of this process, and of the one that reads
        assert peaks[-1] - peaks[0] < 16 * 1024  # KiB; the frames of four minutes are 55 MB of RGB


@pytest.mark.parametrize(
    ("arguments", "code", "text"),
    [
        (["tcp://127.0.0.1:1", "--timeline"], 3, "tcp://127.0.0.1:1: error: can't be opened: Connection refused"),
        (["rtsp://u:secret@127.0.0.1:1/x", "--events"], 3, "rtsp://u:***@127.0.0.1:1/x: error: can't be opened"),
        (
            ["http://no.host.invalid/x", "--timeline"],
            3,
            "there is no host no.host.invalid, or no network",
        ),
        (["http://127.0.0.1:1/x"], 2, "http://127.0.0.1:1/x: a live source is predicted over time; add --timeline or"),
        (["http://127.0.0.1:1/x", "pipe:", "--timeline"], 2, "predicted alone; start a command for each"),
        (["pipe:", "--annotate", "out"], 2, "stdin: --annotate reads a video twice"),
        (["a.avi", "--timeline", "--reconnect", "-1"], 2, "reconnect -1.0: expected a number of seconds, at least 0"),
        (["a.avi", "--reconnect", "nan"], 2, "reconnect nan: expected a number of seconds, at least 0"),
        (["pipe:"], 2, "r3d-fast: stdin: a live source is predicted over time"),
        (["/dev/video97", "--timeline"], 3, "/dev/video97: error: can't be opened: No such file or directory"),
        (["pipe:", "--timeline", "--reconnect", "-1"], 2, "reconnect -1.0: expected a number of seconds"),
    ],
)
def test_what_can_not_be_is_said_in_one_line(
    model: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], code: int, text: str
) -> None:
    found, _, err = tiny.said(capsys, "predict", model, *arguments)
    assert found == code
    assert text in err
    assert "secret" not in err
    assert len(err.splitlines()) == (1 if code == 2 else 2)


def test_live_sources_in_a_list_and_files_given_as_live_are_told(predictor: Predictor, video: Path) -> None:
    (found,) = predictor.timeline(["rtsp://127.0.0.1:1/x"])
    assert found.error == "a live source, not a file: name it alone, with --timeline or --events"
    (item,) = predictor(["rtsp://127.0.0.1:1/x"])
    assert item.error == found.error
    with pytest.raises(UsageError, match="a file, not a live source"):
        predictor.live(str(video))
    with serving(FaultyServer({"/page": b"<html>"})) as server:
        (gone,) = predictor.live(f"{server.url}/none.mp4")
        (page,) = predictor.live(f"{server.url}/page")
    assert gone.error == "can't be opened: Server returned 404 Not Found"
    assert str(page.error).startswith("can't be opened: invalid data")


@pytest.mark.skipif(shutil.which("ffmpeg") is None, reason="needs Debian's ffmpeg: apt-get install ffmpeg")
def test_ffmpeg_in_real_time(predictor: Predictor, video: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    address = f"tcp://127.0.0.1:{port}"
    command = ["ffmpeg", "-v", "error", "-re", "-i", video, "-c", "copy", "-f", "mpegts", f"{address}?listen=1"]
    with subprocess.Popen(command) as child:
        wait_until(lambda: listens(port), "to listen")
        found = list(predictor.live(address, reconnect=0))
        child.wait(PATIENCE)
    times = [moment.at.timestamp() for moment in found if moment.at is not None and moment.error is None]
    assert len(times) == SECONDS
    assert [after - before for before, after in pairwise(times)] == pytest.approx([1.0] * (SECONDS - 1), abs=0.002)


def listens(port: int) -> bool:
    """Whether a program of this machine listens at a TCP port; asks the kernel, as ffmpeg takes one connection only."""
    rows = Path("/proc/net/tcp").read_text(encoding="utf-8").splitlines()[1:]
    return any(row.split()[1].endswith(f":{port:04X}") and row.split()[3] == "0A" for row in rows)


def test_events_of_a_live_source_have_the_time_of_day(predictor: Predictor, video: Path) -> None:
    with Sender(video, parts=[75], pace=4) as sender:
        moments = predictor.live(sender.address, reconnect=0)
        found = list(events(moments, predictor.classes, threshold=0.01))
    assert found[0].at is not None
    assert found[0].as_json()["at"] == found[0].at.isoformat(timespec="milliseconds")
    assert found[-1].error == "cut: the sender ended the connection"
