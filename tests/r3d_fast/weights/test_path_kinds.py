"""What is named in place of a model is called what it is, by every command that takes one."""

from __future__ import annotations

from pathlib import Path

import pytest
import tiny
from clips import write_classes, write_stamped_video

from pipelines.index.video_index import VideoIndex
from r3d_fast.weights.checkpoint import find_weights
from r3d_fast.weights.path_kinds import other_kind


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory, index: VideoIndex) -> Path:
    """A folder with one thing of each kind."""
    folder = tmp_path_factory.mktemp("kinds")
    write_stamped_video(folder / "v.avi", num_frames=2)
    write_classes(folder / "videos", 2)
    (folder / "empty").mkdir()
    (folder / "config.yaml").write_text("model: {}\n", encoding="utf-8")
    (folder / "table.csv").write_text("path,label\n", encoding="utf-8")
    (folder / "weights").write_bytes(b"\x08\0\0\0\0\0\0\0{}      ")
    (folder / "named_otherwise").write_bytes(index.path.read_bytes())
    return folder


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("v.avi", "a video"),
        ("videos", "a folder of videos"),
        ("videos/a", "a folder of videos"),
        ("config.yaml", "a config"),
        ("table.csv", "a text"),
        ("named_otherwise", "an index of videos"),
        ("weights", None),
        ("empty", None),
        ("nothing", None),
        ("/dev/null", "a device"),
    ],
)
def test_each_kind_has_its_name(name: str, kind: str | None, place: Path) -> None:
    assert other_kind(place / name) == kind


def test_a_model_is_nothing_else(model: Path) -> None:
    assert other_kind(model) is None
    assert other_kind(find_weights(model)) is None


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (
            ("predict", "v.avi", "{model}"),
            "v.avi: a video; expected a run folder, a checkpoint folder or a .safetensors",
        ),
        (("predict", "videos", "v.avi"), "videos: a folder of videos; expected a run folder"),
        (("predict", "named_otherwise", "v.avi"), "named_otherwise: an index of videos; expected a run folder"),
        (("eval", "--run", "v.avi"), "--run v.avi: a video; expected the folder of a run"),
        (
            ("eval", "--run", "{weights}"),
            "a file; expected the folder of a run; weights in a file",
        ),
        (("eval", "-c", "demo", "--weights", "config.yaml"), "config.yaml: a config; expected a run folder"),
        (("export", "videos", "-o", "out"), "videos: a folder of videos; expected a run folder"),
        (("import-weights", "v.avi", "-o", "a.safetensors"), "v.avi: a video; expected a .pth file of PyTorch, or a"),
        (("import-weights", "config.yaml", "-o", "a.safetensors"), "config.yaml: a config; expected a .pth file"),
        (("data", "index", "v.avi"), "v.avi: is not a folder; expected the folder that holds the videos"),
        (("data", "check", "v.avi"), "v.avi: not a readable index"),
        (("report", "v.avi"), "v.avi: a file; expected the folder of a run"),
        (("watch", "videos"), "videos: no run"),
        (("train", "v.avi"), "v.avi: is a single video; expected a folder"),
    ],
)
def test_swapped_arguments_are_one_line_that_says_what_came(
    arguments: tuple[str, ...], says: str, place: Path, model: Path, capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.chdir(place)
    before = {path: path.stat().st_mtime_ns for path in place.rglob("*")}
    code, out, said = tiny.said(
        capsys, *(argument.format(model=model, weights=find_weights(model)) for argument in arguments)
    )
    assert (code in (2, 3), out, len(said.splitlines())) == (True, "", 1), said
    assert says in said
    assert {path: path.stat().st_mtime_ns for path in place.rglob("*")} == before
