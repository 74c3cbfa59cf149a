from __future__ import annotations

import array
import csv
import fcntl
import json
import os
import signal
import subprocess
import sys
import termios
from collections.abc import Iterator, Sequence
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import av
import clips
import numpy as np
import pytest
import tiny
from timed_video import write_long, write_with_times
from waiting import PATIENCE, is_asleep, wait_until

from pipelines.errors import UsageError, VideoError
from pipelines.index.video_index import VideoIndex
from pipelines.specs import ClipSpec
from r3d_fast.cli import cli, run_cli
from r3d_fast.loaders import clip_loader
from r3d_fast.prediction.network import LogitsAndFeatures
from r3d_fast.prediction.predictor import Predictor
from r3d_fast.prediction.timelines.timeline import Preparer, timeline
from r3d_fast.prediction.timelines.windows import Hops, windows
from r3d_fast.weights.checkpoint import load_checkpoint, save_checkpoint


def spans(path: Path, clip: ClipSpec, hops: Hops) -> list[list[int]]:
    """The frames of the window of each hop."""
    found: list[list[int]] = []
    for window in windows(str(path), clip, hops):
        assert window.first == len(found)
        found += [[clips.read_stamp(frame.pixels()) for frame in window.frames]] * window.hops
    return found


def expected(times: Sequence[float], stride: int, size: int, hop: float, end: float) -> list[list[int]]:
    """What `spans` has to be, by looking at all frames at once."""
    kept = [number for number in range(len(times)) if number % stride == stride // 2]
    result = []
    for number in range(max(1, int(np.ceil(end / hop - 1e-6)))):
        middle = next((i for i, k in enumerate(kept) if times[k] >= (number + 0.5) * hop), len(kept))
        start = min(max(0, middle - size // 2), len(kept) - size)
        result.append(kept[start : start + size])
    return result


@pytest.mark.parametrize(("frames", "fps"), [(8, 25), (60, 25), (101, 30), (240, 10)])
@pytest.mark.parametrize("hop", [0.3, 1.0, 3.0])
def test_the_window_about_the_middle_of_each_hop(tmp_path: Path, frames: int, fps: int, hop: float) -> None:
    path = clips.write_stamped_video(tmp_path / "v.avi", num_frames=frames, fps=fps, b_frames=2)
    times = [k / fps for k in range(frames)]
    consecutive = ClipSpec(num_frames=4, sampling="consecutive", stride=2)
    assert spans(path, consecutive, Hops(hop)) == expected(times, 2, 4, hop, frames / fps)
    wide = Hops(hop, 12 / fps)
    assert spans(path, consecutive, wide) == expected(times, 3, 4, hop, frames / fps) or frames < 11


def test_a_segments_model_sees_seven_seconds_as_it_learnt_to(tmp_path: Path) -> None:
    path = clips.write_stamped_video(tmp_path / "v.avi", num_frames=200, fps=10)
    found = spans(path, ClipSpec(num_frames=7), Hops(5.0))
    assert found == expected([k / 10 for k in range(200)], 10, 7, 5.0, 20.0)
    assert found[0] == [5, 15, 25, 35, 45, 55, 65]  # the middles of seven parts of 70 frames: a segments clip


@pytest.mark.parametrize("sampling", ["segments", "consecutive"])
def test_a_window_is_as_long_as_the_clips_that_the_model_was_trained_on(
    tmp_path: Path, model: Path, sampling: str
) -> None:
    config = Predictor(model, device="cpu").network.config
    stored = load_checkpoint(model)
    clip = {**config.model_dump(mode="json")["clip"], "sampling": sampling, "num_frames": 4, "stride": 1}
    state = {**stored.state, "config": {**stored.state["config"], "clip": clip}, "clip_seconds": 1.6}
    save_checkpoint(tmp_path / "model", replace(stored, state=state))
    predictor = Predictor(tmp_path / "model", device="cpu")
    video = clips.write_stamped_video(tmp_path / "v.avi", num_frames=200, fps=10)
    found, wanted, other = (list(predictor.timeline([video], window=window)) for window in (None, 1.6, 7.0))
    assert all(dict(a.classes) == pytest.approx(dict(b.classes), abs=1e-6) for a, b in zip(found, wanted, strict=True))
    assert any(dict(a.classes) != pytest.approx(dict(b.classes), abs=1e-6) for a, b in zip(found, other, strict=True))
    hops = Hops().for_clips(1.6)
    assert spans(video, ClipSpec.model_validate(clip), hops) == expected([k / 10 for k in range(200)], 4, 4, 1.0, 20.0)
    assert Hops(1.0, 3.0).for_clips(1.6) == Hops(1.0, 3.0)
    assert Hops().for_clips(None) == Hops()


@pytest.mark.parametrize("sampling", ["segments", "consecutive"])
def test_a_shorter_video_gives_the_clip_that_it_gives_as_a_whole(tmp_path: Path, sampling: str) -> None:
    for frames in (1, 3, 40):
        path = clips.write_stamped_video(tmp_path / f"{frames}.avi", num_frames=frames)
        clip = ClipSpec.model_validate({"num_frames": 16, "sampling": sampling, "stride": 1 + 2 * (sampling[0] == "c")})
        index = VideoIndex.build(folder_of(path, tmp_path / f"{sampling}{frames}"), workers=0)
        with clip_loader(index, "cpu", "float32", clip=clip, split=None, train=False) as loader:
            wanted = loader.sampler.plan(0, 0).frames.tolist()
        assert spans(path, clip, Hops()) == [wanted] * max(1, -(-frames // 25))


def folder_of(path: Path, root: Path) -> Path:
    (root / "class").mkdir(parents=True)
    (root / "class" / path.name).write_bytes(path.read_bytes())
    return root


def test_hops_go_by_the_files_own_times(tmp_path: Path) -> None:
    times = [*range(0, 400, 40), *range(3000, 3400, 40), 7000, 7040]
    path = write_with_times(tmp_path / "v.mkv", times)
    clip = ClipSpec(num_frames=3, sampling="consecutive")
    assert spans(path, clip, Hops(1.0)) == expected([t / 1000 for t in times], 1, 3, 1.0, 7.08)


STILL = [*range(0, 840, 40), *range(15_840, 16_920, 40)]  # ms: 21 frames, 15 s of a still, 27 frames


@pytest.mark.parametrize("name", ["v.mp4", "v.mkv", "v.ts", "v.avi"])
def test_hops_within_a_still_show_the_frames_about_it(tmp_path: Path, name: str) -> None:
    codec = "mpeg4" if name.endswith(("avi", "ts")) else "libx264"
    path = write_with_times(tmp_path / name, STILL, codec=codec, b_frames=2, tick=Fraction(1, 25))
    found = spans(path, ClipSpec(num_frames=4, sampling="consecutive", stride=1), Hops())
    assert found[0] == [11, 12, 13, 14]
    assert found[1:16] == [[19, 20, 21, 22]] * 15
    assert found[16:] == [[36, 37, 38, 39]]
    # A still makes the average rate 2.8 frames a second, but windows of 0.64 s have every fourth frame.
    assert spans(path, ClipSpec(num_frames=4), Hops(1.0, 0.64))[8] == [14, 18, 22, 26]


def test_hops_of_an_avi_with_dropped_frames_take_as_long_as_it_was_filmed(tmp_path: Path) -> None:
    path = write_with_times(tmp_path / "v.avi", range(0, 4800, 80), codec="mpeg4", tick=Fraction(1, 25))
    clip = ClipSpec(num_frames=4, sampling="consecutive")
    assert spans(path, clip, Hops()) == expected([k * 0.08 for k in range(60)], 1, 4, 1.0, 4.8)
    assert spans(path, ClipSpec(num_frames=4), Hops(1.0, 0.64))[1] == [15, 17, 19, 21]  # 12.5 frames a second


def test_no_hop_for_the_moment_by_which_the_picture_begins_late(tmp_path: Path) -> None:
    times = [7 + 40 * k for k in range(50)]
    path = write_with_times(tmp_path / "v.mkv", times, codec="libx264", sound_at=0)
    found = spans(path, ClipSpec(num_frames=4, sampling="consecutive"), Hops())
    assert found == expected([time / 1000 for time in times], 1, 4, 1.0, 2.0)


def test_a_window_is_prepared_as_evaluation_prepares_a_clip(tmp_path: Path, model: Path) -> None:
    network = Predictor(model, device="cpu").network
    path = clips.write_stamped_video(tmp_path / "v.avi", num_frames=7, size=(200, 150))
    index = VideoIndex.build(folder_of(path, tmp_path / "data"), workers=0)
    clip, augment = network.config.clip, network.config.augment
    assert clip.span == 7
    with clip_loader(index, "cpu", "float32", clip=clip, augment=augment, split=None, train=False) as loader:
        wanted = np.array(next(loader.epoch(0)).clips)[0]
    (window,) = windows(str(path), clip, Hops())
    preparer = Preparer(augment, "float32")
    np.testing.assert_array_equal(preparer.clips([window, window]), [wanted, wanted])


def test_a_frame_is_prepared_once_in_the_dtype_of_the_model(tmp_path: Path, model: Path) -> None:
    network = Predictor(model, device="cpu").network
    path = clips.write_stamped_video(tmp_path / "v.avi", num_frames=9)
    clip = network.config.clip
    for dtype in (np.float32, np.float16):
        (window,) = windows(str(path), clip, Hops())
        preparer = Preparer(network.config.augment, np.dtype(dtype).name)
        first = preparer.clips([window])
        assert first.dtype == dtype
        with pytest.raises(AssertionError, match="prepared already"):
            window.frames[0].pixels()
        np.testing.assert_array_equal(preparer.clips([window, window]), np.concatenate([first, first]))


def test_windows_are_prepared_before_their_batch_is_full_where_their_pixels_take_much_memory(
    tmp_path: Path, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    network = Predictor(model, device="cpu").network
    path = clips.write_stamped_video(tmp_path / "v.avi", num_frames=9)
    (window,) = windows(str(path), network.config.clip, Hops())
    preparer = Preparer(network.config.augment, "float32")
    preparer.free([window])
    assert [frame.values for frame in window.frames] == [None] * len(window.frames)
    monkeypatch.setattr("r3d_fast.prediction.timelines.timeline._GROUP_BYTES", 100_000)  # bytes; less than these frames
    preparer.free([window])
    assert all(frame.values is not None for frame in window.frames)
    preparer.free([window])  # now there is nothing to do
    preparer.free([])


def test_a_bad_file_makes_no_batch_smaller(tmp_path: Path, model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    network = Predictor(model, device="cpu").network
    sizes: list[int] = []

    def count(self: object, batch: np.ndarray) -> LogitsAndFeatures:
        sizes.append(len(batch))
        return plain(self, batch)

    plain = type(network).__call__
    monkeypatch.setattr(type(network), "__call__", count)
    video = str(clips.write_stamped_video(tmp_path / "a.avi", num_frames=40, fps=30))
    found = list(timeline(network, [video, "none.avi", video, "none.avi"], Hops(), batch_size=3))
    assert sizes == [3, 1]
    ends = [("a.avi", 1.0), ("a.avi", 1.333), ("none.avi", 1.0)]  # the last hop ends with the video
    assert [(Path(moment.video).name, moment.end) for moment in found] == ends * 2


def test_a_window_of_a_video_filmed_upright_is_upright(tmp_path: Path, model: Path) -> None:
    network = Predictor(model, device="cpu").network
    path = clips.write_stamped_video(tmp_path / "v.mp4", num_frames=7, size=(200, 150), codec="h264")
    clips.turn_mp4(path, (0, 1, -1, 0))
    index = VideoIndex.build(folder_of(path, tmp_path / "data"), workers=0)
    clip, augment = network.config.clip, network.config.augment
    with clip_loader(index, "cpu", "float32", clip=clip, augment=augment, split=None, train=False) as loader:
        wanted = np.array(next(loader.epoch(0)).clips)[0]
    (window,) = windows(str(path), clip, Hops())
    assert [frame.pixels().shape for frame in window.frames] == [(200, 150, 3)] * clip.num_frames
    assert clips.read_stamp(np.rot90(window.frames[0].pixels())) == 0
    np.testing.assert_array_equal(Preparer(augment, "float32").clips([window])[0], wanted)


def test_moments_of_many_videos_in_order_with_errors_among_them(tmp_path: Path, model: Path) -> None:
    whole = clips.write_stamped_video(tmp_path / "a.avi", num_frames=80)
    cut = tmp_path / "b.avi"
    cut.write_bytes(whole.read_bytes()[: whole.stat().st_size * 3 // 4])
    short = clips.write_stamped_video(tmp_path / "c.avi", num_frames=3, size=(112, 160))
    predictor = Predictor(model, device="cpu")
    named = [str(whole), str(cut), "none.avi", str(short)]
    found = list(predictor.timeline(named, top=2))
    assert [(named.index(item.video), item.start, item.end, item.error) for item in found] == [
        (0, 0, 1, None), (0, 1, 2, None), (0, 2, 3, None), (0, 3, 3.2, None),
        (1, 0, 1, None), (1, 1, 2, None), (1, 2, 3, None), (1, 3, 4, found[7].error),
        (2, 0, 1, "can't be read: No such file or directory"),
        (3, 0, 0.12, None),
    ]  # fmt: skip
    assert str(found[7].error).startswith("truncated: ")
    for size in (1, 3):
        again = list(predictor.timeline(named, top=2, batch_size=size))
        for one, other in zip(found, again, strict=True):
            assert (one.video, one.start, one.error) == (other.video, other.start, other.error)
            assert dict(one.classes) == pytest.approx(dict(other.classes), abs=1e-5)
    assert dict(found[-1].classes) == pytest.approx(dict(predictor([short], top=2)[0].classes), abs=1e-5)


def test_bad_files_are_told_before_a_batch_is_full(model: Path) -> None:
    def names() -> Iterator[str]:
        yield from (f"none{number}.avi" for number in range(2000))
        raise ZeroDivisionError

    found = Predictor(model, device="cpu").timeline(names())
    assert next(found).video == "none0.avi"
    with pytest.raises(ZeroDivisionError):
        list(found)


def test_values_out_of_range(model: Path) -> None:
    predictor = Predictor(model, device="cpu")
    for options, text in (({"hop": 0.0}, "hop 0.0"), ({"window": float("nan")}, "window nan"), ({"top": 0}, "top 0")):
        with pytest.raises(UsageError, match=text):
            predictor.timeline([], **options)  # type: ignore[arg-type]


def test_nothing_hides_what_can_not_be_decoded(tmp_path: Path) -> None:
    (tmp_path / "x.avi").write_text("no video")
    with pytest.raises(VideoError, match="not a readable video"):
        list(windows(str(tmp_path / "x.avi"), ClipSpec(), Hops()))


def test_the_command_writes_a_timeline(tmp_path: Path, model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    video = clips.write_stamped_video(tmp_path / "a.avi", num_frames=60)
    files = ["--json", str(tmp_path / "t.json"), "--csv", str(tmp_path / "t.csv")]
    arguments = ["predict", str(model), str(video), "none.avi", "--timeline", "--hop", "0.5", "--top", "2", *files]
    assert run_cli(cli, arguments, "r3d-fast") == 3
    captured = capsys.readouterr()
    assert [line.split(" s ")[0] for line in captured.out.splitlines()] == [f"{video}: {k / 2:g}" for k in range(5)]
    assert "none.avi: error: can't be read" in captured.err
    items = json.loads((tmp_path / "t.json").read_text())
    assert [(item["video"], item["error"] is None, len(item["timeline"])) for item in items] == [
        (str(video), True, 5), ("none.avi", False, 0),
    ]  # fmt: skip
    assert items[0]["timeline"][4]["start"] == 2.0
    with (tmp_path / "t.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["start"] for row in rows] == ["0", "0.5", "1", "1.5", "2", "0"]
    assert rows[0]["class1"] == items[0]["timeline"][0]["classes"][0]["class"]
    assert rows[5]["error"].startswith("can't be read")


def test_names_that_look_like_something_else_are_files(
    tmp_path: Path, model: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    names = ["rec:1.avi", "concat:a|b.avi", "http:x.avi", "file:x.avi", "pipe:0.avi", "a%03d.avi", "-x.avi"]
    for name in names:
        clips.write_stamped_video(tmp_path / name, num_frames=30)
    for options, lines in ((["--timeline"], 2), ([], 1)):
        assert run_cli(cli, ["predict", str(model), *options, "--", *names], "r3d-fast") == 0
        shown = capsys.readouterr().out.splitlines()
        assert [line.rsplit(": ", 1)[0] for line in shown] == [name for name in names for _ in range(lines)]


def test_a_model_that_answers_nan_says_so_each_second(tmp_path: Path, model: Path) -> None:
    checkpoint = load_checkpoint(model)
    checkpoint.weights["head.fc.weight"][:] = 3e38  # weights that are NaN themselves are refused before
    save_checkpoint(tmp_path / "nan", checkpoint)
    video = clips.write_stamped_video(tmp_path / "a.avi", num_frames=60)
    found = list(Predictor(tmp_path / "nan", device="cpu").timeline([str(video)]))
    assert [bool(item.error and "NaN" in item.error) for item in found] == [True] * 3


def test_it_can_be_interrupted_while_a_list_is_silent(model: Path) -> None:
    command = tiny.command("predict", model, "-", "--timeline")
    with subprocess.Popen(command, cwd=tiny.REPO, stdin=subprocess.PIPE, stderr=subprocess.PIPE) as child:
        assert child.stdin is not None
        assert child.stderr is not None
        child.stdin.write(b"none.avi\nother.avi\n")
        child.stdin.flush()
        # Told in batches, so nothing is yet. The list is read after the model was opened.
        reader = child.stdin.fileno()
        wait_until(lambda: not unread_bytes(reader) and is_asleep(child.pid), "to wait for the rest of the list")
        child.send_signal(signal.SIGINT)
        assert child.wait(PATIENCE) == 130
        assert b"Fatal" not in child.stderr.read()


def unread_bytes(pipe: int) -> int:
    """How many bytes in a pipe its reader has not taken yet."""
    count = array.array("i", [0])
    fcntl.ioctl(pipe, termios.FIONREAD, count)
    return count[0]


@pytest.mark.parametrize("minutes", [10, pytest.param(60, marks=pytest.mark.slow)])
def test_memory_does_not_grow_with_the_length_of_a_video(tmp_path: Path, model: Path, minutes: int) -> None:
    minute, longer = write_long(tmp_path / "m.avi", 60 * 25), write_long(tmp_path / "l.avi", 60 * 25 * minutes)
    code = (
        "import resource, sys\n"
        "from r3d_fast import Predictor\n"
        "predictor = Predictor(sys.argv[1], device='cpu')\n"
        "for video in sys.argv[2:]:\n"
        "    count = sum(1 for _ in predictor.timeline([video]))\n"
        "    print(count, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)\n"
    )
    command = [sys.executable, "-c", code, str(model), str(minute), str(minute), str(longer)]
    done = subprocess.run(command, cwd=tiny.REPO, capture_output=True, text=True, check=True)
    counts, peaks = np.array([line.split() for line in done.stdout.splitlines()], int).T
    assert counts.tolist() == [60, 60, 60 * minutes]
    # All frames of ten minutes are 138 MB of RGB; ru_maxrss is in KiB.
    assert peaks[2] - peaks[1] < 16 * 1024


def test_nor_does_that_of_annotating_it(tmp_path: Path, model: Path) -> None:
    peaks = []
    for minutes in (1, 5):
        video = write_long(tmp_path / f"{minutes}.avi", 60 * 25 * minutes)
        command = tiny.command("predict", model, video, "--annotate", tmp_path / "out")
        with subprocess.Popen(command, cwd=tiny.REPO, stdout=subprocess.DEVNULL) as child:
            _, status, used = os.wait4(child.pid, 0)
            child.returncode = os.waitstatus_to_exitcode(status)
        assert child.returncode == 0
        peaks.append(used.ru_maxrss)
        with av.open(str(tmp_path / "out" / f"{minutes}.mp4")) as shown:
            assert shown.streams.video[0].frames == 60 * 25 * minutes
    assert peaks[1] - peaks[0] < 24 * 1024  # KiB; the frames of four minutes more are 55 MB of RGB
