from __future__ import annotations

import csv
import io
import sys
from pathlib import Path

import clips
import numpy as np
import pytest
from untrained import write_weights
from written import Reader

from pipelines.errors import EnvironmentProblem, UsageError
from r3d_fast.cli import cli, run_cli
from r3d_fast.prediction.clip_logits import Answer
from r3d_fast.prediction.predictor import Predictor
from r3d_fast.prediction.writers.features import feature_file
from r3d_fast.prediction.writers.video_names import FileNames

try:
    from pyarrow import parquet
except ImportError as error:  # also where it is there and wants another NumPy
    parquet, lacking = None, str(error)
else:
    lacking = ""
needs_pyarrow = pytest.mark.skipif(parquet is None, reason=f".parquet needs pyarrow: {lacking}")

FEATURES = 32  # of a network of width 4


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """A video of 6 windows, one that is none, one of 2 windows."""
    folder = tmp_path_factory.mktemp("videos")
    first = clips.write_stamped_video(folder / "a.avi", num_frames=43)
    (folder / "b.avi").write_text("no video")
    return [first, folder / "b.avi", clips.write_stamped_video(folder / "c.avi", num_frames=16)]


def write(target: Path, model: Path, videos: list[Path]) -> int:
    arguments = ["predict", str(model), *map(str, videos), "--views", "all", "--features", str(target)]
    return run_cli(cli, arguments, "r3d-fast")


def table(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_npy_has_a_row_for_each_clip_and_a_table_that_says_of_which(
    model: Path, videos: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert write(tmp_path / "f.npy", model, videos) == 3
    assert f"{videos[1]}: error: not a readable video" in capsys.readouterr().err
    found = np.load(tmp_path / "f.npy", mmap_mode="r", allow_pickle=False)
    assert (found.shape, found.dtype) == ((8, FEATURES), np.float32)
    answers = [answer for answer in Predictor(model, device="cpu").clips(videos, views="all") if not answer.error]
    np.testing.assert_allclose(found, [answer.features for answer in answers], atol=1e-5)
    rows = table(tmp_path / "f.csv")
    assert [(row["video"], int(row["clip"])) for row in rows] == [
        *((str(videos[0]), k) for k in range(6)), *((str(videos[2]), k) for k in range(2)),
    ]  # fmt: skip
    # 4 frames, 2 apart: windows of 8; the last one of a.avi has 3 frames left, and shows them again.
    assert [(int(row["start_frame"]), int(row["end_frame"])) for row in rows] == [
        (0, 6), (8, 14), (16, 22), (24, 30), (32, 38), (40, 42), (0, 6), (8, 14),
    ]  # fmt: skip


def test_features_are_what_the_last_layer_takes(model: Path, videos: list[Path]) -> None:
    predictor = Predictor(model, device="cpu")
    fc = predictor.network.restored.model.head.fc  # type: ignore[attr-defined]
    for answer in predictor.clips([videos[0]], views=2):
        assert answer.features is not None
        logits = answer.features @ fc.weight.numpy() + fc.bias.numpy()
        np.testing.assert_allclose(logits, answer.logits, atol=1e-5)


@pytest.mark.parametrize(("name", "values"), [("r3d18", 512), ("r3d50", 2048), ("densenet121", 1024)])
def test_a_network_of_the_paper_gives_a_row_for_every_16_frames(name: str, values: int, tmp_path: Path) -> None:
    """The features of Hara et al. have 512 values with 18 and 34 layers and 2048 with more, an eighth at width 8."""
    settings = ("clip.num_frames=16", "clip.sampling=consecutive", "clip.stride=1", "clip.short=loop")
    write_weights(tmp_path / "w.safetensors", name, 8, *settings)
    video = clips.write_stamped_video(tmp_path / "v.avi", num_frames=50)
    assert write(tmp_path / "f.npy", tmp_path / "w.safetensors", [video]) == 0
    assert np.load(tmp_path / "f.npy").shape == (4, values // 8)
    starts = [(int(row["start_frame"]), int(row["end_frame"])) for row in table(tmp_path / "f.csv")]
    assert starts == [(0, 15), (16, 31), (32, 47), (48, 49)]


@needs_pyarrow
def test_parquet_has_the_same(model: Path, videos: list[Path], tmp_path: Path) -> None:
    assert write(tmp_path / "f.npy", model, videos) == write(tmp_path / "f.parquet", model, videos) == 3
    found = parquet.read_table(tmp_path / "f.parquet")
    assert found.column_names == ["video", "clip", "start_frame", "end_frame", "features"]
    assert str(found.schema.field("features").type).startswith("list<")
    values = found.to_pydict()
    np.testing.assert_array_equal(np.array(values.pop("features"), np.float32), np.load(tmp_path / "f.npy"))
    rows = table(tmp_path / "f.csv")
    assert {name: list(map(str, column)) for name, column in values.items()} == {
        name: [row[name] for row in rows] for name in values
    }


def test_a_folder_has_a_file_for_each_video(model: Path, videos: list[Path], tmp_path: Path) -> None:
    other = tmp_path / "other" / "a.avi"
    other.parent.mkdir()
    other.write_bytes(videos[2].read_bytes())
    assert write(tmp_path / "out", model, [*videos, other]) == 3
    rows = table(tmp_path / "out" / "features.csv")
    assert [(row["video"], row["file"], row["clips"]) for row in rows] == [
        (str(videos[0]), "a.npy", "6"), (str(videos[2]), "c.npy", "2"), (str(other), "a-2.npy", "2"),
    ]  # fmt: skip
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["a-2.npy", "a.npy", "c.npy", "features.csv"]
    assert np.load(tmp_path / "out" / "a.npy").shape == (6, FEATURES)
    np.testing.assert_array_equal(np.load(tmp_path / "out" / "a-2.npy"), np.load(tmp_path / "out" / "c.npy"))


def test_no_clip_at_all_is_an_empty_file(model: Path, videos: list[Path], tmp_path: Path) -> None:
    assert write(tmp_path / "f.npy", model, videos[1:2]) == 3
    assert np.load(tmp_path / "f.npy").size == 0


@needs_pyarrow
def test_no_clip_at_all_is_an_empty_parquet(model: Path, videos: list[Path], tmp_path: Path) -> None:
    assert write(tmp_path / "f.parquet", model, videos[1:2]) == 3
    assert parquet.read_table(tmp_path / "f.parquet").num_rows == 0


@pytest.mark.parametrize("name", ["f.npy", pytest.param("f.parquet", marks=needs_pyarrow), "folder"])
def test_what_fails_on_the_way_leaves_nothing_half(tmp_path: Path, name: str) -> None:
    row = np.zeros(4, np.float32)

    def fail() -> None:
        with feature_file(tmp_path / name) as add:
            add(Answer("v", 0, np.arange(2, dtype=np.int32), row, row, "", False))
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fail()
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


def test_other_endings_and_a_missing_pyarrow_are_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UsageError, match=r"expected FILE\.npy, FILE\.parquet or a folder"):
        feature_file(tmp_path / "f.txt").__enter__()
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(EnvironmentProblem, match=r"pip install 'r3d-fast\[parquet\]'"):
        feature_file(tmp_path / "f.parquet").__enter__()


def test_a_pipe_takes_parquet_and_is_refused_for_npy(tmp_path: Path) -> None:
    refused = Reader(tmp_path / "f.npy")
    with pytest.raises(UsageError, match=r"f\.npy: a pipe can't take \.npy"), feature_file(refused.path):
        raise AssertionError
    assert refused.content() == b""
    assert [path.name for path in tmp_path.iterdir()] == ["f.npy"]


@needs_pyarrow
def test_parquet_goes_through_a_pipe(tmp_path: Path) -> None:
    reader = Reader(tmp_path / "f.parquet")
    answer = Answer("v.avi", 0, np.arange(3, dtype=np.int32), None, np.ones(FEATURES, np.float32), "", True)
    with feature_file(reader.path) as add:
        add(answer)
    found = parquet.read_table(io.BytesIO(reader.content()))
    assert found.column("features").to_pylist() == [[1.0] * FEATURES]


def test_names_stay_in_their_folder(tmp_path: Path) -> None:
    names = FileNames(tmp_path / "out", ".mp4")
    given = ["../../x.avi", "/etc/x.avi", "..", "", "a\nb.avi", ".hidden.avi", "caf\udce9.avi", "A/X.mp4", "n" * 250]
    found = [names.of(video) for video in given]
    assert all(path.parent == tmp_path / "out" for path in found)
    assert [path.name for path in found[:8]] == [
        "x.mp4", "x-2.mp4", "video.mp4", "video-2.mp4", "a_b.mp4", "hidden.mp4", "caf_.mp4", "X-3.mp4",
    ]  # fmt: skip
    for path in found:
        path.touch()
