"""The reader of safetensors files beside the library of that name: what it takes, the library reads in the same way."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.numpy import load as load_by_library
from safetensors.numpy import save as save_by_library

from pipelines.errors import EnvironmentProblem
from pipelines.machine.memory import FreeMemory
from r3d_fast.errors import CheckpointError
from r3d_fast.weights.tensor_file import DTYPES
from r3d_fast.weights.tensor_reader import MOST_HEADER_BYTES, FileProof, read_tensors, require_memory

IN_ONE_FOLDER = settings(
    max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture], derandomize=True
)
ARRAYS = {
    "w": np.arange(12, dtype=np.float32).reshape(3, 4), "half": np.ones(5, np.float16), "n": np.array(7, np.int64),
    "none": np.zeros((0, 3), np.int32), "flags": np.array([True, False, True]),
}  # fmt: skip
WHOLE = save_by_library(ARRAYS, {"about": "a test"})


def file_of(header: Any, data: bytes = b"", length: int | None = None) -> bytes:
    """A file with this header, an object or its text, and these bytes behind it."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return (len(text) if length is None else length).to_bytes(8, "little") + text + data


def arrays_or_error(path: Path) -> tuple[dict[str, np.ndarray], dict[str, str]] | CheckpointError:
    try:
        return read_tensors(path)
    except CheckpointError as error:
        return error


def assert_as_the_library(path: Path, content: bytes) -> bool:
    """Whether the file was taken; then the library reads the same arrays of it, else the error names the file."""
    path.write_bytes(content)
    found = arrays_or_error(path)
    if isinstance(found, CheckpointError):
        assert str(found).startswith(f"{path}: not a readable safetensors file (")
        return False
    arrays, _ = found
    theirs = load_by_library(content)
    assert arrays.keys() == theirs.keys()
    for name, array in arrays.items():
        assert (array.dtype, array.shape) == (theirs[name].dtype, theirs[name].shape)
        assert array.tobytes() == theirs[name].tobytes()
    return True


TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)


@st.composite
def tensors(draw: st.DrawFn) -> dict[str, np.ndarray]:
    found = {}
    # The library writes no valid file of no tensors with metadata.
    for name in draw(st.lists(TEXT, unique=True, min_size=1, max_size=5)):
        shape, dtype = draw(st.lists(st.integers(0, 4), max_size=4)), draw(st.sampled_from(list(DTYPES)))
        random = np.random.default_rng(draw(st.integers(0, 99)))
        found[name] = random.integers(0, 2, shape).astype(dtype)
    return found


@IN_ONE_FOLDER
@given(arrays=tensors(), about=st.dictionaries(TEXT, TEXT))
def test_what_the_library_writes_is_taken(tmp_path: Path, arrays: dict[str, np.ndarray], about: dict[str, str]) -> None:
    assert assert_as_the_library(tmp_path / "t", save_by_library(arrays, about or None))


@IN_ONE_FOLDER
@given(at=st.integers(0, len(WHOLE) - 1), value=st.integers(0, 255))
def test_any_byte_may_be_any_other(tmp_path: Path, at: int, value: int) -> None:
    assert_as_the_library(tmp_path / "t", WHOLE[:at] + bytes([value]) + WHOLE[at + 1 :])


@IN_ONE_FOLDER
@given(first=st.integers(0, len(WHOLE)), last=st.integers(0, len(WHOLE)), more=st.binary(max_size=20))
def test_parts_may_be_missing_twice_or_others(tmp_path: Path, first: int, last: int, more: bytes) -> None:
    assert_as_the_library(tmp_path / "t", WHOLE[:first] + more + WHOLE[last:])


NUMBERS = st.one_of(
    st.integers(-2, 60), st.sampled_from([2**31, 2**62, 2**63, 2**64, 10**30, -1, 1.5, None, "1", True, [1]])
)
DESCRIBED = st.fixed_dictionaries(
    {
        "dtype": st.sampled_from([*DTYPES.values(), "BF16", "F8_E4M3", "U64", "", 3, None]),
        "shape": st.one_of(st.lists(NUMBERS, max_size=4), NUMBERS),
        "data_offsets": st.one_of(st.lists(NUMBERS, max_size=3), NUMBERS),
    },
    optional={"more": NUMBERS},
)


@IN_ONE_FOLDER
@given(
    header=st.dictionaries(st.sampled_from(["a", "b", "", "__metadata__"]), st.one_of(DESCRIBED, NUMBERS), max_size=3),
    size=st.integers(0, 64),
)
def test_a_header_may_claim_anything(tmp_path: Path, header: dict[str, Any], size: int) -> None:
    assert_as_the_library(tmp_path / "t", file_of(header, bytes(size)))


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "a header of 0 bytes in a file of 0"),
        (file_of({}, length=2**63), f"a header of {2**63} bytes in a file of 10: cut short"),
        (file_of(b"[]"), "its header is no JSON object"),
        (file_of(b'{"a": ' + b"[" * 100_000), "recursion depth"),
        (file_of(b'{"a": 1, "a": 2}'), "a name twice in its header"),
        (file_of(b'{"a": NaN}'), "NaN in its header"),
        (file_of(b'{"a": ' + b"9" * 5000 + b"}"), "expected a number from 0 on, of 63 bits"),
        (file_of({"__metadata__": {"a": 1}}), "metadata that are no texts by names"),
        (
            file_of({"a": {"dtype": "F32", "shape": [2**40, 2**40], "data_offsets": [0, 4]}}, bytes(4)),
            "expected at most 8 sides of at most 2147483647",
        ),
        (
            file_of({"a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 4]}}, bytes(4)),
            r"'a', float32 \[2\], takes 8 bytes, but has 4",
        ),
        (
            file_of({"a": {"dtype": "BF16", "shape": [2], "data_offsets": [0, 4]}}, bytes(4)),
            "'a' is of dtype 'BF16'; expected one of F64, F32",
        ),
        (
            file_of({"a": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}, bytes(8)),
            "8 bytes of tensors, its header says 4",
        ),
        (
            file_of({"a": {"dtype": "F32", "shape": [24], "data_offsets": [0, 96]}}, bytes(4)),
            r"'a' has data_offsets \[0, 96\] in 4 bytes of tensors",
        ),
        (
            file_of({"a": {"dtype": "F32", "shape": [1], "data_offsets": [4, 0]}}, bytes(4)),
            r"'a' has data_offsets \[4, 0\] in 4 bytes of tensors",
        ),
        (file_of(b'{"a": ' + b"1" + b"0" * 19 + b"}"), "'10000000000000000000' in its header; expected a number"),
        (
            file_of({n: {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]} for n in "ab"}, bytes(4)),
            "'b' begins at byte 0, the array before it ends at 4",
        ),
    ],
)
def test_each_refusal_says_what_came(tmp_path: Path, content: bytes, said: str) -> None:
    (tmp_path / "t").write_bytes(content)
    with pytest.raises(CheckpointError, match=said) as caught:
        read_tensors(tmp_path / "t")
    assert caught.value.exit_code == 5
    assert str(caught.value).endswith("; use another file")


def test_a_file_that_is_not_there_is_said_in_words(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"t: not a readable safetensors file \(No such file or directory\)$"):
        read_tensors(tmp_path / "t")


def test_a_damaged_file_of_a_checkpoint_is_no_reason_to_use_another_file(tmp_path: Path) -> None:
    (tmp_path / "t").write_bytes(bytes(9))
    with pytest.raises(CheckpointError, match=r"; use an earlier checkpoint$"):
        read_tensors(tmp_path / "t", FileProof(9, "0"))


def test_small_files_are_read_without_asking_for_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the system says that none is free, 256 MiB may still be had."""
    monkeypatch.setattr("r3d_fast.weights.tensor_reader.free_memory", lambda: FreeMemory(0, "free RAM"))
    require_memory(tmp_path / "t", 2**28)
    with pytest.raises(EnvironmentProblem, match="t: 268435457 bytes of tensors, 0 bytes of memory are free"):
        require_memory(tmp_path / "t", 2**28 + 1)


def test_a_header_that_is_too_long_is_not_read(tmp_path: Path) -> None:
    with (tmp_path / "t").open("wb") as file:
        file.write((MOST_HEADER_BYTES + 1).to_bytes(8, "little"))
        file.truncate(2**40)  # a sparse file: all of it is zeros that take no room
    with pytest.raises(CheckpointError, match=f"expected at most {MOST_HEADER_BYTES}"):
        read_tensors(tmp_path / "t")


def test_tensors_that_no_memory_holds_are_refused_before_they_are_read(tmp_path: Path) -> None:
    size = 2**42
    content = file_of({"a": {"dtype": "U8", "shape": [2**12, 2**30], "data_offsets": [0, size]}})
    with (tmp_path / "t").open("wb") as file:
        file.write(content)
        file.truncate(len(content) + size)  # zeros that take no room
    with pytest.raises(EnvironmentProblem, match=f"t: {size + len(content)} bytes of tensors, .* memory are free"):
        read_tensors(tmp_path / "t")
