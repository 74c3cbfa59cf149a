from __future__ import annotations

import csv
import io
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import clips
import numpy as np
import pytest
import tiny
from cut_files import ENCRYPTED, write_layout

import r3d_fast.prediction.clip_logits
from pipelines.errors import EnvironmentProblem, UsageError
from pipelines.output.files import new_file
from r3d_fast.export.export import export
from r3d_fast.export.inference_engine import InferenceEngine
from r3d_fast.prediction.clip_logits import NOT_FINITE, Answer
from r3d_fast.prediction.predictor import Predictor
from r3d_fast.prediction.restored_network import RestoredNetwork
from r3d_fast.weights.checkpoint import load_checkpoint, save_checkpoint


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Nine videos of several sizes and lengths, one of a frame."""
    folder = tmp_path_factory.mktemp("videos")
    sizes = ((128, 96), (112, 128), (160, 80))
    return [clips.write_stamped_video(folder / f"v{k}.avi", num_frames=1 + 7 * k, size=sizes[k % 3]) for k in range(9)]


def said(capsys: pytest.CaptureFixture[str], *arguments: str | Path) -> tuple[int, str, str]:
    return tiny.said(capsys, "predict", *arguments)


def probabilities(predictions: list[Any]) -> list[dict[str, float]]:
    return [dict(prediction.classes) for prediction in predictions]


def assert_close(one: list[Any], other: list[Any]) -> None:
    assert [item.error for item in one] == [item.error for item in other]
    for mine, yours in zip(probabilities(one), probabilities(other), strict=True):
        assert mine == pytest.approx(yours, abs=1e-5)


def test_results_come_in_the_order_of_the_videos_whatever_shares_a_batch(model: Path, videos: list[Path]) -> None:
    predictor = Predictor(model, device="cpu")
    mixed = [videos[4], "none.avi", videos[0], videos[8], videos[4], videos[2].parent, videos[1], "nul\0.avi"]
    found = predictor(mixed, top=8)
    assert [item.video for item in found] == [str(video) for video in mixed]
    reasons = [
        "can't be read: No such file or directory",
        "a folder, not a video file",
        "not a file name: it contains a NUL byte",
    ]
    assert [item.error for item in found if item.error] == reasons
    alone = [prediction for video in mixed for prediction in predictor([video], top=8)]
    assert_close(found, alone)
    assert_close(predictor(mixed, top=8, batch_size=3), found)
    assert sum(probability for _, probability in found[0].classes) == pytest.approx(1.0)


def test_an_encrypted_video_is_an_error_and_never_garbage(
    capsys: pytest.CaptureFixture[str], model: Path, tmp_path: Path
) -> None:
    path = write_layout(tmp_path / "v.mp4", ENCRYPTED)
    for mode in ([], ["--timeline"]):
        code, out, err = said(capsys, model, path, *mode)
        assert (code, out) == (3, "")
        assert f"{path}: error: encrypted: cenc; make a decrypted copy of it" in err


def test_what_is_left_of_a_truncated_video_is_predicted_where_that_is_allowed(
    capsys: pytest.CaptureFixture[str], model: Path, tmp_path: Path
) -> None:
    path = clips.write_stamped_video(tmp_path / "v.avi", num_frames=40)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    code, out, err = said(capsys, model, path)
    assert (code, out) == (3, "")
    assert "error: truncated: its last" in err
    assert "--allow-partial` take the frames before that" in err
    code, out, err = said(capsys, model, path, "--timeline", "--hop", "0.2")
    assert (code, len(out.splitlines()), "error: truncated: " in err) == (3, 4, True)
    for mode, lines in (([], 1), (["--timeline", "--hop", "0.2"], 4), (["--timeline", "--window", "60"], 1)):
        code, out, err = said(capsys, model, path, "--allow-partial", *mode)
        assert (code, len(out.splitlines()), err) == (0, lines, "")
    (tmp_path / "text.avi").write_text("no video", encoding="utf-8")
    for mode in ([], ["--timeline"]):
        code, _, err = said(capsys, model, tmp_path / "text.avi", "--allow-partial", *mode)
        assert (code, "not a readable video" in err) == (3, True)


def test_larger_frames_than_the_limit_are_an_error_that_names_the_option(
    capsys: pytest.CaptureFixture[str], model: Path, videos: list[Path], tmp_path: Path
) -> None:
    error = "too large: 128x96 px, the limit is 12287 px a frame; --max-pixels 12288 allows it"
    for mode in ([], ["--timeline"], ["--annotate", tmp_path / "a"]):
        code, out, err = said(capsys, model, videos[3], "--max-pixels", "12287", *mode)
        assert (code, out) == (3, "")
        assert err.splitlines()[-2].endswith(f"v3.avi: error: {error}")
        code, out, _ = said(capsys, model, videos[3], "--max-pixels", "12288", *mode)
        assert code == 0
    assert (tmp_path / "a" / "v3.mp4").is_file()


def test_many_files_do_not_wait_for_the_last(model: Path, videos: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    predictor = Predictor(model, device="cpu")
    named = [videos[0], "none.avi", *videos[1:4], "none.avi", *videos[4:]]
    whole = predictor(named)
    monkeypatch.setattr(r3d_fast.prediction.clip_logits, "_SECOND_CHUNK", 2)
    monkeypatch.setattr(r3d_fast.prediction.clip_logits, "_GROWTH", 1)
    taken: list[Path | str] = []

    def giving() -> Iterator[Path | str]:
        for video in named:
            taken.append(video)
            yield video

    stream = predictor.stream(giving(), batch_size=1)
    first = next(stream)
    assert len(taken) <= 4  # a chunk and the one after it
    assert_close([first, *stream], whole)


def test_left_early_it_leaves_nothing(
    model: Path, videos: list[Path], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    stream = Predictor(model, device="cpu").stream(videos, batch_size=2)
    next(stream)
    assert list(tmp_path.iterdir())
    stream.close()  # type: ignore[attr-defined]
    assert not list(tmp_path.iterdir())


def test_an_exported_model_says_the_same(model: Path, videos: list[Path], tmp_path: Path) -> None:
    export(model, tmp_path / "exported")
    ours, theirs = Predictor(model, device="cpu"), Predictor(tmp_path / "exported", device="cpu")
    assert isinstance(theirs.network, InferenceEngine)
    named = [*videos, "none.avi"]
    assert_close(theirs(named, top=8), ours(named, top=8))
    features = [np.stack([a.features for a in predictor.clips(videos)]) for predictor in (ours, theirs)]
    np.testing.assert_allclose(features[1], features[0], atol=1e-4)
    assert_close(list(theirs.timeline(named, top=8)), list(ours.timeline(named, top=8)))


def test_out_of_memory_says_which_batch_fits(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    network = Predictor(model, device="cpu").network
    run = RestoredNetwork._run

    def small(self: RestoredNetwork, clips: Any) -> Any:
        if clips.shape[0] > 2:
            raise MemoryError("ResourceExhaustedError: Out of memory error on GPU 0")
        return run(self, clips)

    monkeypatch.setattr(RestoredNetwork, "_run", small)
    with pytest.raises(EnvironmentProblem, match="a batch of 8 clips does not fit; a batch of 2 fits: --batch-size 2"):
        network(np.zeros((8, 3, 4, 16, 16), np.float32))


def test_views_are_averaged_in_probability(model: Path, videos: list[Path]) -> None:
    predictor = Predictor(model, device="cpu")
    for views, count in ((3, 3), ("all", 6), ("paper", 6)):  # 43 frames, windows of 4, 2 apart
        rows = [answer.logits for answer in predictor.clips([videos[6]], views=views)]
        assert len(rows) == count
        logits = np.stack([row for row in rows if row is not None]).astype(np.float64)
        mean = (np.exp(logits) / np.exp(logits).sum(1, keepdims=True)).mean(0)
        found = dict(predictor([videos[6]], top=8, views=views)[0].classes)
        assert [found[name] for name in predictor.classes] == pytest.approx(mean.tolist())


def test_a_video_of_which_a_part_can_not_be_read_says_so(model: Path) -> None:
    predictor = Predictor(model, device="cpu")
    row, none = np.arange(8, dtype=np.float32), np.zeros(0, np.int32)
    stream = [
        Answer("a", 0, none, None, None, "damaged", False), Answer("a", 1, none, row, row, "", True),
        Answer("b", 0, none, row, row, "", True),
        Answer("c", 0, none, None, None, "gone", True),
    ]  # fmt: skip
    found = list(predictor._predictions(iter(stream), 1, None))
    assert [item.error for item in found] == ["1 of 2 clips missing: damaged", None, "gone"]
    assert found[0].classes == found[1].classes != found[2].classes == ()


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"top": 0}, "top 0"),
        ({"top": 1.5}, "top 1.5: expected a whole number, at least 1"),
        ({"top": "3"}, "top 3: expected a whole number, at least 1"),
        ({"batch_size": 0}, "batch_size 0"),
        ({"batch_size": 2.0}, "batch_size 2.0: expected a whole number, at least 1"),
        ({"views": 1.5}, "views 1.5: "),
        ({"views": 0}, "views 0"),
        ({"views": "x"}, "views x"),
    ],
)
def test_values_out_of_range_are_said_before_anything_is_read(model: Path, options: Any, text: str) -> None:
    with pytest.raises(UsageError, match=text):
        Predictor(model, device="cpu").stream([], **options)


@pytest.mark.parametrize("videos", [None, 5, 2.5, b"a.avi", object()])
def test_what_is_no_video_is_one_line(model: Path, videos: Any) -> None:
    predictor = Predictor(model, device="cpu")
    for ask in (predictor, predictor.timeline, predictor.events, predictor.clips):
        with pytest.raises(UsageError, match=r"^.+ is no video; expected the path of one") as caught:
            list(ask(videos))
        assert len(str(caught.value).splitlines()) == 1
    with pytest.raises(UsageError, match=r"^frames: no array"):
        predictor([[[1], [2, 3]]])
    with pytest.raises(UsageError, match=r"^frames object \[\]: expected"):
        predictor([None])


def test_a_model_that_answers_nan_is_an_error_of_each_video(
    model: Path, videos: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    checkpoint = load_checkpoint(model)
    checkpoint.weights["head.fc.weight"][:] = 3e38  # weights that are NaN themselves are refused before
    save_checkpoint(tmp_path / "nan", checkpoint)
    code, out, err = said(capsys, tmp_path / "nan", videos[1], videos[2], "--json", tmp_path / "p.json")
    assert (code, out) == (3, "")
    assert f"{videos[1]}: error: {NOT_FINITE}" in err
    assert "2 of 2 videos could not be read" in err
    assert [item["error"] for item in json.loads((tmp_path / "p.json").read_text())] == [NOT_FINITE] * 2


def test_names_may_hold_anything(
    model: Path, videos: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    raw = [b"new\nline.avi", b"caf\xe9.avi", "日本.avi".encode(), b"#1 <script>.avi", b"-x {}.avi", b"\x1b[2J.avi"]
    for name in raw:
        (folder / os.fsdecode(name)).write_bytes(videos[3].read_bytes())
    files = ["--json", tmp_path / "p.json", "--csv", tmp_path / "p.csv", "--top", "1"]
    code, out, _ = said(capsys, model, folder, *files)
    assert code == 0
    assert len(out.splitlines()) == len(raw)
    assert "\x1b" not in out
    items = json.loads((tmp_path / "p.json").read_text(encoding="utf-8"))
    assert sorted(os.fsencode(Path(item["video"]).name) for item in items) == sorted(raw)
    with (tmp_path / "p.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert {Path(row["video"]).name for row in rows} >= {"new\nline.avi", "caf\\xe9.avi", "日本.avi"}
    assert {(row["error"], row["class1"]) for row in rows} == {("", items[0]["classes"][0]["class"])}


def test_lists_folders_and_globs_by_the_command(
    model: Path, videos: list[Path], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    listed = "\n".join(map(str, videos[:2]))
    done = tiny.call("predict", model, "-", videos[0], str(videos[0].parent / "v[23].avi"), stdin=listed)
    assert done.returncode == 0, done.stderr
    assert [line.split(": ")[0] for line in done.stdout.splitlines()] == list(map(str, videos[:4]))
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b"\n")))
    code, _, err = said(capsys, model, "-")
    assert code == 3
    assert "empty video list: expected files" in err


def test_what_can_not_be_is_said(
    model: Path, videos: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "static").mkdir()
    (tmp_path / "static" / "m.pdmodel").touch()
    for code, text, arguments in (
        (5, "a static model without its r3d_fast.json", [tmp_path / "static", videos[1]]),
        (2, "--views 0: expected a number of clips, all or paper", [model, videos[1], "--views", "0"]),
        (2, "can't be written: there is no folder", [model, videos[1], "--json", tmp_path / "no" / "p.json"]),
        (
            2,
            "--views and --features can't be combined with --timeline",
            [model, videos[1], "--timeline", "--features", tmp_path / "f.npy"],
        ),
    ):
        found, out, err = said(capsys, *arguments)
        assert (found, out) == (code, ""), err
        assert text in err


def test_a_file_is_there_whole_or_as_it_was(tmp_path: Path) -> None:
    path = tmp_path / "p.json"
    path.write_text("old")
    with pytest.raises(TypeError), new_file(path) as file:
        file.writelines([b"half", None])  # type: ignore[list-item]
    assert [item.name for item in tmp_path.iterdir()] == ["p.json"]
    assert path.read_text() == "old"
    (tmp_path / "link").symlink_to(path)
    with new_file(tmp_path / "link") as file:
        file.write(b"new")
    assert path.read_text() == "new"
    assert (tmp_path / "link").is_symlink()
    with new_file(Path("/dev/null")) as file:
        file.write(b"x")
