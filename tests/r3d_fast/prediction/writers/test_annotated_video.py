from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import av
import clips
import matplotlib
import numpy as np
import pytest
import tiny
from numpy.typing import NDArray
from timed_video import write_with_times

from pipelines.errors import UsageError, VideoError
from r3d_fast.cli import cli, run_cli
from r3d_fast.prediction.timelines.moments import Moment
from r3d_fast.prediction.writers.annotated_video import annotate
from r3d_fast.prediction.writers.captions import Captions

# Has Cyrillic letters, which Pillow's own font lacks.
DEJAVU = Path(matplotlib.get_data_path()) / "fonts" / "ttf" / "DejaVuSans.ttf"


def moments(*labels: str) -> list[Moment]:
    """A timeline of a second a label."""
    return [Moment("v", k, k + 1, ((label, 0.5 + k / 10),)) for k, label in enumerate(labels)]


def frames(path: Path) -> tuple[list[NDArray[np.uint8]], list[float]]:
    """(pixels, seconds) of all frames."""
    with av.open(str(path)) as container:
        decoded = [(frame.to_ndarray(format="rgb24"), float(frame.time)) for frame in container.decode(video=0)]
    return [pixels for pixels, _ in decoded], [seconds for _, seconds in decoded]


def test_every_frame_is_there_at_its_time_with_the_label_of_its_second(tmp_path: Path) -> None:
    video = clips.write_stamped_video(tmp_path / "v.avi", num_frames=60, size=(320, 240), fps=25)
    annotate(str(video), moments("one", "two and more", "three"), tmp_path / "o.mp4", [])
    found, times = frames(tmp_path / "o.mp4")
    assert [clips.read_stamp(pixels) for pixels in found] == list(range(60))
    np.testing.assert_allclose(times, np.arange(60) / 25, atol=1e-6)
    with av.open(str(tmp_path / "o.mp4")) as container:
        stream = container.streams.video[0]
        assert (stream.width, stream.height, stream.average_rate) == (320, 240, Fraction(25))
    plain = [clips.stamped_frame(k, (320, 240)).astype(float) for k in range(60)]
    off = np.array([np.abs(pixels - wanted).mean(2) for pixels, wanted in zip(found, plain, strict=True)])
    assert off[:, :200].mean() < 12  # the rest of the picture is as it was, but for two encoders
    dark = np.array([(pixels[205:, :200].max(2) < 60).any(0).sum() for pixels in found])
    seconds = [dark[k : k + 25].mean() for k in (0, 25, 50)]
    assert seconds[0] + 20 < seconds[1] > seconds[2] > 20  # the widest label has the widest box


def test_a_rate_that_is_no_whole_number_and_times_that_are_uneven_stay(tmp_path: Path) -> None:
    times = [0, 40, 90, 500, 2000, 2040]
    video = write_with_times(tmp_path / "v.mkv", times)
    annotate(str(video), moments("a"), tmp_path / "o.mp4", [])
    np.testing.assert_allclose(frames(tmp_path / "o.mp4")[1], np.array(times) / 1000, atol=2e-3)
    film = tmp_path / "film.avi"
    with av.open(str(film), "w") as target:
        stream = target.add_stream("mpeg4", rate=Fraction(30000, 1001))
        stream.width, stream.height, stream.pix_fmt = 128, 96, "yuv420p"
        for number in range(30):
            frame = av.VideoFrame.from_ndarray(clips.stamped_frame(number), format="rgb24")
            frame.pts = number
            target.mux(stream.encode(frame))
        target.mux(stream.encode(None))
    annotate(str(film), moments("a"), tmp_path / "f.mp4", [])
    with av.open(str(tmp_path / "f.mp4")) as container:
        assert container.streams.video[0].average_rate == Fraction(30000, 1001)


def test_odd_sides_lose_a_pixel(tmp_path: Path) -> None:
    video = clips.write_stamped_video(tmp_path / "v.avi", size=(161, 121), codec="mjpeg", num_frames=3)
    annotate(str(video), moments("a"), tmp_path / "o.mp4", [])
    assert frames(tmp_path / "o.mp4")[0][0].shape == (120, 160, 3)


@pytest.mark.parametrize("degrees", [90, -90, 180])
def test_a_video_that_was_filmed_on_its_side_is_upright(
    tmp_path: Path, degrees: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    video = clips.write_stamped_video(tmp_path / "v.mp4", size=(160, 128), codec="h264", num_frames=4)
    content = bytearray(video.read_bytes())
    # The matrix of the track header (ISO/IEC 14496-12, 8.3.2): a, b, u, c, d, v, x, y, w, of four bytes each.
    place = content.index(b"tkhd") + 4 + 40
    one, minus = (1 << 16).to_bytes(4, "big"), ((1 << 32) - (1 << 16)).to_bytes(4, "big")
    none = bytes(4)
    a, b, c, d = {90: (none, minus, one, none), -90: (none, one, minus, none), 180: (minus, none, none, minus)}[degrees]
    content[place : place + 20] = a + b + none + c + d
    video.write_bytes(content)
    annotate(str(video), moments("a"), tmp_path / "o.mp4", [])
    found = frames(tmp_path / "o.mp4")[0]
    turns = {90: 1, -90: 3, 180: 2}[degrees]
    assert found[0].shape[:2] == ((128, 160) if turns == 2 else (160, 128))
    wanted = np.rot90(clips.stamped_frame(3, (160, 128)), turns)
    assert np.abs(found[3][:100].astype(float) - wanted[:100]).mean() < 12


def test_of_a_video_that_is_cut_what_is_left_is_written_and_of_none_nothing(tmp_path: Path) -> None:
    video = clips.write_stamped_video(tmp_path / "v.avi", num_frames=48)
    video.write_bytes(video.read_bytes()[: video.stat().st_size * 3 // 4])
    annotate(str(video), moments("a", "b"), tmp_path / "o.mp4", [])
    assert 20 < len(frames(tmp_path / "o.mp4")[0]) < 48
    with pytest.raises(VideoError):
        annotate(str(tmp_path / "none.avi"), moments("a"), tmp_path / "none.mp4", [])
    with pytest.raises(UsageError, match="can't be written"):
        annotate(str(video), moments("a"), tmp_path / "no" / "o.mp4", [])
    assert sorted(path.name for path in tmp_path.iterdir()) == ["o.mp4", "v.avi"]


def test_the_command_writes_one_for_each_video_that_can_be_read(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = tiny.untrained(tmp_path / "run")
    for name in ("a.avi", "in/a.avi"):
        (tmp_path / "v" / name).parent.mkdir(parents=True, exist_ok=True)
        clips.write_stamped_video(tmp_path / "v" / name, num_frames=30)
    (tmp_path / "v" / "b.avi").write_text("no video")
    arguments = ["predict", str(model), str(tmp_path / "v"), "--annotate", str(tmp_path / "out"), "--font", str(DEJAVU)]
    assert run_cli(cli, arguments, "r3d-fast") == 3
    captured = capsys.readouterr()
    assert len(captured.out.splitlines()) == 4
    assert "1 of 3 videos could not be read" in captured.err
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["a-2.mp4", "a.mp4"]
    assert len(frames(tmp_path / "out" / "a.mp4")[0]) == 30


def box(size: tuple[int, int], label: str, probability: float | None, classes: tuple[str, ...] = ()) -> tuple[int, ...]:
    """(top, bottom, left, right) of what a caption changes of a white picture."""
    width, height = size
    picture = np.full((height, width, 3), 255, np.uint8)
    Captions(height, width, classes).put(picture, label, probability)
    rows, columns = np.nonzero((picture < 255).any(2))
    return int(rows.min()), int(rows.max()), int(columns.min()), int(columns.max())


@pytest.mark.parametrize("size", [(320, 240), (1920, 1080), (1080, 1920), (64, 48), (16, 16), (2, 2)])
@pytest.mark.parametrize("label", ["run", "a label that goes on and on " * 9, "W" * 400, "", "two\nlines\x1b"])
def test_captions_stay_in_the_lower_left_corner(size: tuple[int, int], label: str) -> None:
    top, bottom, left, right = box(size, label, 0.873)
    width, height = size
    assert bottom >= height * 0.5
    if min(size) >= 240:
        assert left <= width * 0.03
        assert bottom >= height * 0.95
        assert top >= height * 0.8
        assert right <= width * 0.98
        assert bottom - top >= min(size) * 0.05  # readable


def test_the_more_likely_the_longer_the_bar() -> None:
    pictures = [np.full((240, 320, 3), 255, np.uint8) for _ in range(3)]
    for picture, probability in zip(pictures, (0.1, 0.5, 0.99), strict=True):
        Captions(240, 320, []).put(picture, "run", probability)
    yellow = [int(((p[..., 0] > 230) & (p[..., 2] < 130)).any(0).sum()) for p in pictures]
    assert yellow[0] < yellow[1] < yellow[2]


def test_what_the_font_lacks_gives_way_to_a_question_mark_or_the_number_of_the_class() -> None:
    captions = Captions(240, 320, ["walk", "跑步", "跑 (run)"])
    assert captions._shown("跑步") == "class 1"
    assert captions._shown("跑 (run)") == "? (run)"
    assert captions._shown("Über café") in ("Über café", "Uber cafe")


def test_a_font_that_is_named_shows_what_pillows_own_lacks() -> None:
    label, pictures = "\u0431\u0435\u0433 (run)", [np.full((240, 320, 3), 255, np.uint8) for _ in range(2)]
    for picture, font, shown in zip(pictures, (None, DEJAVU), ("??? (run)", label), strict=True):
        captions = Captions(240, 320, [label], font)
        assert captions._shown(label) == shown
        captions.put(picture, label, 0.5)
    assert (pictures[0] != pictures[1]).any()


def test_a_font_that_can_not_be_used_is_said_before_anything_is_written(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = tiny.untrained(tmp_path / "run")
    video = clips.write_stamped_video(tmp_path / "v.avi", num_frames=30)
    (tmp_path / "text.ttf").write_text("no font")
    (tmp_path / "cut.ttf").write_bytes(DEJAVU.read_bytes()[:500])
    (tmp_path / "DejaVuSans.ttf").write_bytes(b"")  # the name of a font that Pillow may find elsewhere
    there = {path.name for path in tmp_path.iterdir()}
    for name, said in (
        ("none.ttf", "no such file"),
        ("run", "it is a folder"),
        ("text.ttf", "can't be used ("),
        ("cut.ttf", "can't be used ("),
        ("DejaVuSans.ttf", "can't be used ("),
    ):
        arguments = ["predict", str(model), str(video), "--annotate", str(tmp_path / "o"), "--font"]
        assert run_cli(cli, [*arguments, str(tmp_path / name)], "r3d-fast") == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert f"--font {tmp_path / name}: {said}" in line
        assert line.endswith("expected a TrueType or OpenType font")
    assert run_cli(cli, ["predict", str(model), str(video), "--font", str(DEJAVU)], "r3d-fast") == 2
    assert "--font is used only with --annotate; give both or none" in capsys.readouterr().err
    assert {path.name for path in tmp_path.iterdir()} == there
