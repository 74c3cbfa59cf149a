"""What the options of an evaluation become: settings, and a model for each split."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipelines.errors import UsageError
from r3d_fast.evaluation.protocols import models_of_splits, protocol_overrides


def test_protocols_become_settings() -> None:
    assert protocol_overrides(None, None, None) == []
    assert protocol_overrides("clip", None, None) == ["eval.views=1", "eval.crops=1"]
    assert protocol_overrides("clip", None, 1) == ["eval.views=1", "eval.crops=1"]
    assert protocol_overrides("video", None, 3) == ["eval.views=paper", "eval.crops=3"]
    assert protocol_overrides("video-all", None, None) == ["eval.views=all"]
    assert protocol_overrides(None, 5, 10) == ["eval.views=5", "eval.crops=10"]
    with pytest.raises(UsageError, match="give only one of them"):
        protocol_overrides("clip", 1, None)
    with pytest.raises(UsageError, match="--protocol clip takes one crop of each video, --crops 3 asks for 3"):
        protocol_overrides("clip", None, 3)


def test_each_split_gets_its_own_files() -> None:
    (alone,) = models_of_splits(None, Path("r"), None, None, ["a.b=c"])
    assert (alone.number, alone.model, alone.config, alone.overrides) == (None, Path("r"), "r/config.yaml", ("a.b=c",))
    parts = models_of_splits("3, 1", None, Path("w{split}.safetensors"), "c", ["data.index=i{split}"])
    assert [str(part.model) for part in parts] == ["w3.safetensors", "w1.safetensors"]
    assert [part.overrides for part in parts] == [("data.index=i3",), ("data.index=i1",)]


def test_a_config_that_is_given_goes_before_that_of_the_run() -> None:
    (alone,) = models_of_splits(None, Path("r"), None, "other.yaml", [])
    assert (alone.model, alone.config) == (Path("r"), "other.yaml")


def test_no_model_two_models_and_weights_without_a_config_are_refused() -> None:
    for run, weights, config in (
        (None, None, "c"), (None, None, None), (Path("r"), Path("w"), "c"), (None, Path("w"), None),
    ):  # fmt: skip
        with pytest.raises(UsageError, match="expected either --run DIR, or -c CFG with --weights FILE"):
            models_of_splits(None, run, weights, config, [])


def test_a_file_is_no_run(tmp_path: Path) -> None:
    (tmp_path / "w.safetensors").write_bytes(b"weights")
    with pytest.raises(UsageError, match=r"--run .*w\.safetensors: a file; expected the folder of a run"):
        models_of_splits(None, tmp_path / "w.safetensors", None, None, [])


def test_numbers_of_splits_are_above_zero_and_each_once() -> None:
    for splits in ("1,x", "2,2", "0", "1,", "", "-1"):
        with pytest.raises(UsageError, match=f"--splits {splits}: expected numbers of splits, each once"):
            models_of_splits(splits, Path("r{split}"), None, None, [])
    with pytest.raises(UsageError, match="one model for splits 1,2 would be tested on videos that it was trained on"):
        models_of_splits("1,2", Path("r"), None, None, [])
    (only,) = models_of_splits("2", Path("r"), None, None, [])
    assert (only.number, only.model) == (2, Path("r"))
