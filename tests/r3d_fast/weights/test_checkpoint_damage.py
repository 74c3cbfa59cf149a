"""Any damage to any file of a checkpoint is noticed, and the checkpoint before it is used, which is said."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import numpy as np
import pytest
import tiny
from hypothesis import given, settings
from hypothesis import strategies as st

from r3d_fast.config.config import Config
from r3d_fast.demo.videos import CLASSES
from r3d_fast.errors import CheckpointError
from r3d_fast.weights.checkpoint import (
    MANIFEST,
    OPTIMIZER,
    STATE,
    WEIGHTS,
    Checkpoint,
    damaged_best,
    latest_checkpoint,
    load_checkpoint,
    save_checkpoint,
    step_folder,
)
from r3d_fast.weights.stored_model import read_weights
from r3d_fast.weights.weights_file import read_weights_file

T = TypeVar("T")
FILES = (WEIGHTS, OPTIMIZER, STATE, MANIFEST)


def example(step: int = 1) -> Checkpoint:
    weights = {"a.weight": np.full((3, 4), step, np.float32), "a._mean": np.arange(5, dtype=np.float64)}
    state = {"format": 1, "config": {}, "classes": ["x", "y"], "step": step}
    return Checkpoint(weights, {"a.weight|velocity_0": np.full((3, 4), step, np.float32)}, state)


def equal(one: Checkpoint, other: Checkpoint) -> bool:
    return one.state == other.state and all(
        mine.keys() == theirs.keys() and all(mine[name].tobytes() == theirs[name].tobytes() for name in mine)
        for mine, theirs in ((one.weights, other.weights), (one.optimizer, other.optimizer))
    )


def content_or_error(read: Callable[[], T]) -> T | CheckpointError:
    try:
        return read()
    except CheckpointError as error:
        return error


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("whole") / "c"
    save_checkpoint(folder, example())
    return folder


@settings(max_examples=400, deadline=None, derandomize=True)
@given(name=st.sampled_from(FILES), place=st.floats(0, 1, exclude_max=True), value=st.integers(1, 255))
def test_any_changed_byte_of_any_file_gives_the_same_checkpoint_or_an_error(
    whole: Path, name: str, place: float, value: int
) -> None:
    file = whole / name
    content = file.read_bytes()
    at = int(place * len(content))
    try:
        file.write_bytes(content[:at] + bytes([content[at] ^ value]) + content[at + 1 :])
        loaded = content_or_error(lambda: load_checkpoint(whole))
    finally:
        file.write_bytes(content)
    if isinstance(loaded, CheckpointError):
        assert str(whole) in str(loaded)
    else:
        assert name == MANIFEST  # a space between two words of it
        assert equal(loaded, example())


@settings(max_examples=200, deadline=None, derandomize=True)
@given(place=st.floats(0, 1, exclude_max=True), value=st.integers(1, 255))
def test_any_changed_byte_of_a_copied_weights_file_is_noticed(whole: Path, place: float, value: int) -> None:
    content = (whole / WEIGHTS).read_bytes()
    at = int(place * len(content))
    copy = whole.parent / "copy.safetensors"
    copy.write_bytes(content[:at] + bytes([content[at] ^ value]) + content[at + 1 :])
    weights, described = read_weights_file(whole / WEIGHTS)
    read = content_or_error(lambda: read_weights_file(copy))
    if isinstance(read, CheckpointError):
        assert str(read).startswith(f"{copy}: ")
    else:  # the name of the digest is another, or that of the description, which is missed where it is needed
        assert read[1] in (described, {})
        assert equal(Checkpoint(read[0], {}, {}), Checkpoint(weights, {}, {}))


def as_folder(file: Path) -> None:
    file.unlink()
    file.mkdir()


def as_pipe(file: Path) -> None:
    file.unlink()
    os.mkfifo(file)


def as_dead_link(file: Path) -> None:
    file.unlink()
    file.symlink_to("nothing")


def as_device(file: Path) -> None:
    file.unlink()
    file.symlink_to("/dev/zero")


def as_link_to_another(file: Path) -> None:
    other = file.parents[1] / "step-000000001" / file.name
    file.unlink()
    file.symlink_to(other)


def cut(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-7])


def zeroed(file: Path) -> None:
    file.write_bytes(bytes(file.stat().st_size))


def emptied(file: Path) -> None:
    file.write_bytes(b"")


def without_keys(file: Path) -> None:
    file.write_text("{}")


def as_list(file: Path) -> None:
    file.write_text("[]")


def nested(file: Path) -> None:
    file.write_text("[" * 100_000)


def no_utf8(file: Path) -> None:
    file.write_bytes(b"\xff\xfe\x00")


def huge(file: Path) -> None:
    with file.open("ab") as stream:
        stream.truncate(2**40)


DAMAGE: tuple[Callable[[Path], None], ...] = (
    Path.unlink, as_folder, as_pipe, as_dead_link, as_device, as_link_to_another, cut, zeroed, emptied, without_keys,
    as_list, nested, no_utf8, huge,
)  # fmt: skip


@pytest.mark.parametrize("damage", DAMAGE, ids=lambda damage: damage.__name__)
@pytest.mark.parametrize("name", FILES)
def test_damage_of_each_kind_falls_back_to_the_checkpoint_before(
    tmp_path: Path, name: str, damage: Callable[[Path], None]
) -> None:
    for step in (1, 2):
        save_checkpoint(step_folder(tmp_path, step), example(step))
    newest = step_folder(tmp_path, 2)
    damage(newest / name)
    found = latest_checkpoint(tmp_path)
    assert found is not None
    folder, checkpoint, (complaint,) = found
    assert folder == step_folder(tmp_path, 1)
    assert equal(checkpoint, example(1))
    assert str(newest) in complaint
    assert name in complaint or "manifest" in complaint
    assert "use an earlier" in complaint


def manifest_of(folder: Path, **changes: object) -> None:
    """Change entries of the manifest of `folder`; None takes one out."""
    values = json.loads((folder / MANIFEST).read_text())
    merged = {**values, **changes}
    (folder / MANIFEST).write_text(json.dumps({k: v for k, v in merged.items() if v is not None}))


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({WEIGHTS: None}, "names other files than model.safetensors, state.json and optimizer.safetensors"),
        ({STATE: None}, "names other files than"),
        ({OPTIMIZER: None}, "does not name optimizer.safetensors, which is there"),
        ({"../../secret": {"bytes": 1, "sha256": "0"}}, "names other files than"),
        ({STATE: 3}, "manifest.json: "),
        ({STATE: {"bytes": "3", "sha256": "0"}}, "has sizes or digests that are none"),
        ({STATE: {"bytes": 3, "sha256": "0", "more": 1}}, "manifest.json: "),
    ],
)
def test_a_manifest_names_exactly_the_files_of_a_checkpoint(
    tmp_path: Path, changes: dict[str, object], said: str
) -> None:
    save_checkpoint(tmp_path / "c", example())
    manifest_of(tmp_path / "c", **changes)
    with pytest.raises(CheckpointError, match=f"not a complete checkpoint .*{said}"):
        load_checkpoint(tmp_path / "c")


@pytest.mark.parametrize(
    ("key", "value"),
    [("config", 3), ("classes", "xy"), ("classes", [1]), ("step", "1"), ("layout", []), ("seconds", {})],
)
def test_values_of_a_wrong_type_are_named_although_their_digest_is_right(
    tmp_path: Path, key: str, value: object
) -> None:
    save_checkpoint(tmp_path / "c", Checkpoint({}, {}, {**example().state, key: value}))
    with pytest.raises(CheckpointError, match=rf"state\.json: {key} is missing or of a wrong type"):
        load_checkpoint(tmp_path / "c")


def test_moments_of_many_times_the_weights_are_not_read(tmp_path: Path) -> None:
    weights = {"w": np.zeros(4, np.float32)}
    save_checkpoint(tmp_path / "c", Checkpoint(weights, {"w|a": np.zeros(2**19, np.float32)}, example().state))
    with pytest.raises(CheckpointError, match=r"optimizer\.safetensors: \d+ bytes; expected at most \d+, by its"):
        load_checkpoint(tmp_path / "c")


def test_a_file_in_the_place_of_the_newest_checkpoint_is_a_damaged_one(tmp_path: Path) -> None:
    save_checkpoint(step_folder(tmp_path, 1), example())
    step_folder(tmp_path, 2).write_text("mine")
    found = latest_checkpoint(tmp_path)
    assert found is not None
    assert found[0] == step_folder(tmp_path, 1)
    assert "step-000000002: not a complete checkpoint" in found[2][0]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run with a best checkpoint and one of a step."""
    run = tmp_path_factory.mktemp("models") / "run"
    tiny.untrained(run / "best")
    shutil.copytree(run / "best", step_folder(run, 7))
    return run


@pytest.mark.parametrize("damage", [Path.unlink, as_pipe, cut, without_keys], ids=lambda damage: damage.__name__)
@pytest.mark.parametrize("name", [WEIGHTS, STATE, MANIFEST])
def test_what_reads_a_run_uses_what_is_whole_and_says_so(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str, damage: Callable[[Path], None]
) -> None:
    run = tmp_path / "run"
    shutil.copytree(model, run)
    damage(run / "best" / name)
    stored = read_weights(run)
    assert stored.file == step_folder(run, 7) / WEIGHTS
    assert stored.classes == tuple(CLASSES)
    err = capsys.readouterr().err
    assert err.startswith(f"warning: {run / 'best'}")
    assert f"warning: {step_folder(run, 7)}: is not damaged, and is used instead" in err
    # A checkpoint that is named itself has none before it.
    with pytest.raises(CheckpointError, match="use an earlier"):
        read_weights(run / "best")
    shutil.rmtree(step_folder(run, 7))
    with pytest.raises(CheckpointError, match=f"{run / 'best'}"):
        read_weights(run)


@pytest.mark.parametrize("place", ["best", "checkpoints/step-000000002"])
@pytest.mark.parametrize(
    ("what", "lay"),
    [
        ("FIFO", os.mkfifo),
        ("file", Path.touch),
        ("device", lambda path: path.symlink_to("/dev/zero")),
        ("link to nothing", lambda path: path.symlink_to("nowhere")),
    ],
)
def test_what_lies_in_the_place_of_a_checkpoint_is_named(
    place: str, what: str, lay: Callable[[Path], None], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    state = {"config": Config().model_dump(mode="json"), "classes": ["x", "y"]}
    for step in (1, 2):
        save_checkpoint(
            step_folder(tmp_path, step), Checkpoint(example().weights, {}, {**example(step).state, **state})
        )
    shutil.rmtree(tmp_path / place, ignore_errors=True)
    lay(tmp_path / place)
    expected = "expected the folder of a checkpoint: remove it"
    says = f"{tmp_path / place}: not a complete checkpoint (it is a {what}; {expected})"
    assert read_weights(tmp_path).file.parent == step_folder(tmp_path, 2 if place == "best" else 1)
    first, second = capsys.readouterr().err.splitlines()
    assert first == f"warning: {says}; use an earlier checkpoint"
    assert second.endswith("is not damaged, and is used instead")
    found = latest_checkpoint(tmp_path)
    assert found is not None
    if place == "best":
        assert damaged_best(tmp_path).startswith(says)
    else:
        assert found[2] == [f"{says}; use an earlier checkpoint"]


def test_a_best_without_any_file_is_no_complete_checkpoint(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    state = {"config": Config().model_dump(mode="json"), "classes": ["x", "y"]}
    save_checkpoint(step_folder(tmp_path, 1), Checkpoint(example().weights, {}, {**example().state, **state}))
    (tmp_path / "best").mkdir()
    read_weights(tmp_path)
    assert f"{tmp_path / 'best'}: not a complete checkpoint (manifest.json: No such file" in capsys.readouterr().err
