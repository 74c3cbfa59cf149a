from __future__ import annotations

import csv
import json
from pathlib import Path

import clips
import numpy as np
import pytest
import tiny

from pipelines.errors import UsageError
from r3d_fast import Predictor
from r3d_fast.prediction.timelines.events import Event, events
from r3d_fast.prediction.timelines.moments import Moment

CLASSES = ("a", "b")


def hops(probabilities: list[float], *, video: str = "v", start: float = 0.0) -> list[Moment]:
    """Seconds in which class a has these probabilities."""
    return [
        Moment(video, start + k, start + k + 1, probabilities=np.array([p, 1 - p])) for k, p in enumerate(probabilities)
    ]


def of_a(moments: list[Moment], threshold: float, merge_seconds: float = 0.0) -> list[tuple[float, ...]]:
    """(start, end, mean, peak) of the events of class a."""
    found = events(moments, CLASSES, threshold=threshold, merge_seconds=merge_seconds)
    return [(e.start, e.end, round(e.mean, 6), round(e.peak, 6)) for e in found if e.label == "a"]


def test_an_event_begins_at_the_threshold_and_goes_on_down_to_four_fifths_of_it() -> None:
    assert of_a(hops([0.4, 0.5, 0.9, 0.4, 0.39, 0.45, 0.6]), 0.5) == [(1, 4, 0.6, 0.9), (6, 7, 0.6, 0.6)]
    assert of_a(hops([0.49, 0.41, 0.45]), 0.5) == []
    assert of_a(hops([0.95, 0.85, 0.8]), 0.9) == [(0, 3, round(2.6 / 3, 6), 0.95)]


def test_events_that_are_no_further_apart_than_the_averages_are_one() -> None:
    values = [0.8, 0.2, 0.8, 0.0, 0.0, 0.8, 0.1, 0.0, 0.0, 0.9]
    assert [e.start for e in events(hops(values), CLASSES, threshold=0.6) if e.label == "a"] == [0, 2, 5, 9]
    assert [found[:2] for found in of_a(hops(values), 0.6)] == [(0, 1), (2, 3), (5, 6), (9, 10)]
    assert of_a(hops(values), 0.6, 1.0)[0] == (0, 3, 0.6, 0.8)
    assert [found[:2] for found in of_a(hops(values), 0.6, 2.0)] == [(0, 6), (9, 10)]
    assert of_a(hops(values), 0.6, 3.0) == [(0, 10, round(sum(values) / 10, 6), 0.9)]
    # What is between the last event and the end counts to none.
    assert of_a(hops([0.8, 0.5, 0.0, 0.0]), 0.6, 3.0) == [(0, 2, 0.65, 0.8)]


def test_below_one_half_classes_overlap_and_each_has_its_own_events() -> None:
    found = list(events(hops([0.6, 0.45, 0.4, 0.1]), CLASSES, threshold=0.4))
    assert [(e.label, e.start, e.end) for e in found] == [("a", 0, 3), ("b", 0, 4)]


def test_a_gap_an_error_and_the_next_video_end_all_events() -> None:
    bad = Moment("v", 2.0, 3.0, error="truncated")
    moments = [*hops([0.9, 0.9]), bad, *hops([0.9], start=7.0), *hops([0.9], start=9.0), *hops([0.9], video="w")]
    found = list(events(moments, CLASSES, threshold=0.5, merge_seconds=100.0))
    assert [(e.video, e.start, e.end, e.label, e.error) for e in found] == [
        ("v", 0, 2, "a", None), ("v", 2, 3, "", "truncated"), ("v", 7, 8, "a", None), ("v", 9, 10, "a", None),
        ("w", 0, 1, "a", None),
    ]  # fmt: skip
    assert (found[1].mean, found[1].peak) == (0.0, 0.0)
    assert found[1].as_json() == {"video": "v", "start": 2, "end": 3, "error": "truncated"}


def test_an_event_is_told_as_soon_as_it_is_over() -> None:
    for merge_seconds in (0.0, 1.0, 2.0):
        moments = iter(hops([0.9, 0.9, 0.1, 0.1, 0.1, 0.1]))
        first = next(events(moments, CLASSES, threshold=0.5, merge_seconds=merge_seconds))
        assert (first.label, first.end) == ("a", 2)
        assert next(moments).start == 2 + merge_seconds + 1


@pytest.fixture(scope="module")
def video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return clips.write_stamped_video(tmp_path_factory.mktemp("events") / "a.avi", num_frames=120)


def test_the_command_tells_events_as_lines_and_files(
    model: Path, video: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    predictor = Predictor(model, device="cpu")
    wanted = list(predictor.events([video, "none.avi"], threshold=0.13, smooth=2.0))
    assert wanted[-1].error == "can't be read: No such file or directory"
    assert len(wanted) > 1
    named = ("predict", model, video, "none.avi", "--events", "--threshold", "0.13", "--smooth", "2")
    code, out, err = tiny.said(capsys, *named, "--json", tmp_path / "e.json", "--csv", tmp_path / "e.csv")
    assert code == 3
    assert out.splitlines()[0] == (
        f"{video}: {wanted[0].start:g} to {wanted[0].end:g} s {wanted[0].label} {100 * wanted[0].mean:.1f} % "
        f"(peak {100 * wanted[0].peak:.1f} %)"
    )
    assert len(out.splitlines()) == len(wanted) - 1
    assert "none.avi: error: can't be read: No such file" in err
    assert err.endswith("1 of 2 videos could not be read\n")
    items = json.loads((tmp_path / "e.json").read_text())
    assert_same(items, wanted)
    with (tmp_path / "e.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(r["video"], r["label"], r["error"]) for r in rows] == [(e.video, e.label, e.error or "") for e in wanted]
    assert list(rows[0]) == ["video", "start", "end", "label", "mean", "peak", "error", "at"]
    code, out, err = tiny.said(capsys, *named, "--json", "-")
    assert_same([json.loads(line) for line in out.splitlines()], wanted)
    assert f"{video}: 0 to" in err


def assert_same(items: list[dict[str, object]], wanted: list[Event]) -> None:
    for item, event in zip(items, wanted, strict=True):
        expected = event.as_json()
        assert item.keys() == expected.keys()
        for key, value in expected.items():
            assert item[key] == (pytest.approx(value, abs=1e-5) if isinstance(value, float) else value)


def test_a_timeline_with_a_threshold_has_a_line_also_where_no_class_reaches_it(
    model: Path, video: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ("predict", model, video, "--timeline", "--threshold", "0.9", "--json", tmp_path / "t.json")
    code, out, _ = tiny.said(capsys, *arguments)
    assert (code, out) == (0, "".join(f"{video}: {k} s -\n" for k in range(5)))
    (item,) = json.loads((tmp_path / "t.json").read_text())
    assert [moment["classes"] for moment in item["timeline"]] == [[]] * 5


@pytest.mark.parametrize(
    ("options", "text"),
    [
        (["--events", "--threshold", "0"], "threshold 0.0: expected a probability above 0, at most 1"),
        (["--events", "--threshold", "50"], "threshold 50.0: expected a probability above 0"),
        (["--timeline", "--threshold", "-1"], "threshold -1.0: expected a probability, 0 to 1"),
        (["--events", "--smooth", "inf"], "smooth inf: expected a finite number of seconds"),
        (["--events", "--hop", "inf"], "hop inf: expected a finite number of seconds"),
        (["--events", "--strip", "s.jpg"], "--strip s.jpg: expected FILE.png, or a folder"),
        (["--annotate", "out.mp4"], "--annotate out.mp4: expected a folder"),
        (["--events", "--smooth", "nan"], "smooth nan: expected a finite number of seconds"),
        (["--smooth", "2"], "--hop, --window, --threshold and --smooth are used only with"),
        (["--events", "--timeline"], "give one of them"),
        (["--events", "--views", "2"], "--views and --features can't be combined"),
        (["--events", "--font", "x.ttf"], "--font is used only with --annotate"),
    ],
)
def test_options_that_make_no_sense_are_told_in_one_line(
    model: Path, capsys: pytest.CaptureFixture[str], options: list[str], text: str
) -> None:
    code, _, err = tiny.said(capsys, "predict", model, "none.avi", *options)
    assert code == 2
    assert text in err
    assert len(err.splitlines()) == 1


def test_thresholds_from_python(model: Path) -> None:
    with pytest.raises(UsageError, match="threshold 0"):
        Predictor(model, device="cpu").events([], threshold=0.0)
