"""What is written is a safetensors file as that library reads it, in pieces between which training goes on."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from safetensors.numpy import load as load_by_library

from r3d_fast.weights.tensor_file import tensors_digest, write_tensors

ARRAYS = {
    "odd": np.arange(3, dtype=np.uint8), "w": np.arange(12, dtype=np.float32).reshape(3, 4),
    "turned": np.arange(6.0).reshape(2, 3).T, "one": np.array(3, np.int64), "none": np.zeros((0, 3), np.int32),
}  # fmt: skip


def test_the_library_reads_the_same_arrays(tmp_path: Path) -> None:
    with (tmp_path / "t").open("wb") as file:
        proof = write_tensors(file, ARRAYS, {"key": "välue"})
    content = (tmp_path / "t").read_bytes()
    assert proof["bytes"] == len(content)
    read = load_by_library(content)
    assert read.keys() == ARRAYS.keys()
    for name, array in ARRAYS.items():
        assert (read[name].dtype, read[name].shape) == (array.dtype, array.shape), name
        np.testing.assert_array_equal(read[name], array)


def test_every_array_begins_at_a_multiple_of_the_size_of_its_items(tmp_path: Path) -> None:
    for letters in range(1, 9):  # headers of eight lengths
        with (tmp_path / "t").open("wb") as file:
            write_tensors(file, {**ARRAYS, "n" * letters: np.zeros(1)}, {})
        content = (tmp_path / "t").read_bytes()
        length = int.from_bytes(content[:8], "little")
        header = json.loads(content[8 : 8 + length])
        bits = {"F64": 64, "I64": 64, "F32": 32, "I32": 32, "U8": 8}
        assert all((8 + length + one["data_offsets"][0]) % (bits[one["dtype"]] // 8) == 0 for one in header.values())


def test_training_is_let_on_after_each_four_mebibytes(tmp_path: Path) -> None:
    ten = {"w": np.zeros(10 << 20, np.uint8)}
    calls: list[float] = []
    with (tmp_path / "t").open("wb") as file:
        write_tensors(file, ten, {}, calls.append)
    assert len(calls) == 1 + 3  # the header, and 4, 4 and 2 MiB
    assert min(calls) >= 0
    calls.clear()
    tensors_digest(ten, calls.append)
    assert len(calls) == 1 + 3  # the name, and the same pieces
