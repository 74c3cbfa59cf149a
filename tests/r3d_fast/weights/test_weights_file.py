"""A copy of a weights file, without the manifest of its checkpoint, still shows damage."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.numpy import save_file
from untrained import write_weights

from r3d_fast.config.config import Config
from r3d_fast.errors import CheckpointError
from r3d_fast.weights.stored_model import read_weights
from r3d_fast.weights.tensor_reader import read_tensors
from r3d_fast.weights.weights_file import read_weights_file, write_weights_file

WEIGHTS = {"w": np.arange(6, dtype=np.float32)}


JSON = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=6)),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=6), inner, max_size=3)),
    max_leaves=6,
)
DESCRIPTIONS = st.one_of(
    JSON,
    st.fixed_dictionaries(
        {},
        optional={
            "config": st.one_of(JSON, st.dictionaries(st.sampled_from(list(Config.model_fields)), JSON, max_size=10)),
            "classes": JSON, "clip_seconds": JSON, "format": JSON, "tensors_sha256": JSON,
        },
    ),
)  # fmt: skip


@settings(
    max_examples=200, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(description=DESCRIPTIONS)
def test_a_description_of_anything_is_an_error_in_one_line(tmp_path: Path, description: object) -> None:
    file = tmp_path / "w.safetensors"
    save_file(WEIGHTS, file, {"r3d_fast": json.dumps(description)})
    with pytest.raises(CheckpointError, match=r"^.*w\.safetensors: [^\n]*$"):
        read_weights(file)


def written(path: Path) -> Path:
    with path.open("wb") as file:
        write_weights_file(file, WEIGHTS, {"classes": ["run", "jump"]})
    return path


def test_weights_and_description_come_back(tmp_path: Path) -> None:
    weights, description = read_weights_file(written(tmp_path / "w.safetensors"))
    np.testing.assert_array_equal(weights["w"], WEIGHTS["w"])
    assert description["classes"] == ["run", "jump"]


def test_a_changed_class_name_is_noticed(tmp_path: Path) -> None:
    file = written(tmp_path / "w.safetensors")
    file.write_bytes(file.read_bytes().replace(b"jump", b"bump"))
    with pytest.raises(CheckpointError, match="the SHA-256 of its description is not the one stored in it") as caught:
        read_weights_file(file)
    assert caught.value.exit_code == 5


def test_a_changed_weight_is_noticed(tmp_path: Path) -> None:
    file = written(tmp_path / "w.safetensors")
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)
    with pytest.raises(CheckpointError, match="the SHA-256 of its tensors is not the one stored in it"):
        read_weights_file(file)


def test_files_of_older_versions_have_no_digest_and_are_read(tmp_path: Path) -> None:
    write_weights(tmp_path / "w.safetensors")
    assert "r3d_fast_sha256" not in read_tensors(tmp_path / "w.safetensors")[1]
    assert read_weights_file(tmp_path / "w.safetensors")[1]["format"] == 1


@pytest.mark.parametrize("text", ["[1]", "{", "[" * 100_000, json.dumps("x")])
def test_a_description_that_is_none_is_as_if_it_was_not_there(tmp_path: Path, text: str) -> None:
    save_file(WEIGHTS, tmp_path / "w.safetensors", {"r3d_fast": text})
    assert read_weights_file(tmp_path / "w.safetensors")[1] == {}
    shutil.copy(tmp_path / "w.safetensors", tmp_path / "copy.safetensors")
