"""Files of paddle.save are read to the same arrays as paddle.load gives; hostile ones run nothing."""

from __future__ import annotations

import collections
import os
import pickle
import re
import struct
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from r3d_fast.backend.paddle import import_paddle
from r3d_fast.errors import CheckpointError
from r3d_fast.weights.foreign.pdparams import read_pdparams

paddle = import_paddle()
WEIGHT = np.arange(6, dtype=np.float32).reshape(2, 3)


def write(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path


def layers() -> Any:
    return paddle.nn.Sequential(paddle.nn.Conv3D(3, 4, 3), paddle.nn.BatchNorm3D(4), paddle.nn.Linear(4, 2))


@pytest.mark.parametrize("protocol", [2, 3, 4])
def test_a_state_dict_of_this_paddle_is_read_as_paddle_reads_it(tmp_path: Path, protocol: int) -> None:
    file, state = tmp_path / "m.pdparams", layers().state_dict()
    paddle.save(state, str(file), protocol=protocol)
    found = read_pdparams(file)
    assert found.keys() == state.keys()
    for name, tensor in state.items():
        assert found[name].dtype == np.float32
        np.testing.assert_array_equal(found[name], tensor.numpy(), err_msg=name)


@pytest.mark.parametrize("version", ["2.6.2", "3.3.1"])
def test_files_of_other_versions_are_read(version: str) -> None:
    """Written by paddle.save of that version, with NumPy 1 and 2, in protocol 2."""
    found = read_pdparams(Path(__file__).parents[3] / "golden" / f"paddle_{version}.pdparams")
    np.testing.assert_array_equal(found["w"], WEIGHT)
    np.testing.assert_array_equal(found["half"], np.arange(3, dtype=np.float16))
    assert found.keys() == {"w", "half"}


@pytest.mark.parametrize("protocol", [2, 4])
def test_a_state_dict_inside_another_dict_is_read_with_paddles_names(tmp_path: Path, protocol: int) -> None:
    file, state = tmp_path / "m.pdparams", layers().state_dict()
    paddle.save({"epoch": 3, "state_dict": state, "lr": [0.1, None, True]}, str(file), protocol=protocol)
    found = read_pdparams(file)
    assert (found["epoch"], found["lr"]) == (3, [0.1, None, True])
    for name, tensor in state.items():
        inner, array = found["state_dict"][name]
        assert inner == tensor.name
        np.testing.assert_array_equal(array, tensor.numpy())


def test_a_tensor_that_paddle_cut_up_is_whole_again(tmp_path: Path) -> None:
    """As paddle.save does from 1 GiB on in protocols 2 and 3 (its `_unpack_saved_dict`)."""
    parts = {"w@@.0": WEIGHT.reshape(-1)[:4], "w@@.1": WEIGHT.reshape(-1)[4:]}
    about = {"w": {"OriginShape": (2, 3), "slices": ["w@@.0", "w@@.1"]}}
    content = {"b": np.zeros(2), **parts, "UnpackBigParamInfor@@": about, "StructuredToParameterName@@": {"w": "w_0"}}
    found = read_pdparams(write(tmp_path / "m.pdparams", pickle.dumps(content, protocol=2)))
    assert found.keys() == {"b", "w"}
    np.testing.assert_array_equal(found["w"], WEIGHT)


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_arrays_of_every_kind_of_number_and_order_come_through(tmp_path: Path, protocol: int) -> None:
    rng = np.random.default_rng(0)
    arrays: dict[str, Any] = {
        code: np.asarray(rng.integers(0, 2, (2, 3, 4))).astype(code)
        for code in ("f2", "f4", "f8", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "b1", ">f4")
    }
    arrays |= {"fortran": np.asfortranarray(arrays["f4"]), "none": np.zeros((0, 3)), "scalar": np.float32(1.5)}
    arrays |= {"0-d": np.asarray(2.5), "again": arrays["f4"]}
    nested = collections.OrderedDict(arrays)
    found = read_pdparams(write(tmp_path / "m.pdparams", pickle.dumps({"model": nested, "n": 2**70}, protocol)))
    assert found["n"] == 2**70
    assert found["model"].keys() == arrays.keys()
    for name, array in arrays.items():
        assert (found["model"][name].dtype, found["model"][name].shape) == (array.dtype, array.shape)
        np.testing.assert_array_equal(found["model"][name], array)


class Call:
    """Pickles as a call of `function`."""

    def __init__(self, function: Any, *arguments: Any, state: Any = None) -> None:
        self.parts = (function, arguments) if state is None else (function, arguments, state)

    def __reduce__(self) -> Any:
        return self.parts


class Stateful:
    """Its __setstate__ would run."""

    def __init__(self, marker: str) -> None:
        self.marker = marker

    def __setstate__(self, state: dict[str, Any]) -> None:
        Path(state["marker"]).touch()


def text(value: str) -> bytes:
    return b"\x8c" + bytes([len(value)]) + value.encode()


def hostile(marker: Path) -> dict[str, tuple[bytes, str]]:
    """Pickles that touch `marker` when unpickled, or could, and what is said of each."""
    touch = f"touch {marker}"
    system = f"{os.name}.system"
    named = b"(dS'w'\n(i" + b"os\nsystem\n"
    os_system = b"\x80\x04" + text("os") + text("system") + b"\x93"
    found: dict[str, tuple[bytes, str]] = {
        f"reduce, protocol {protocol}": (pickle.dumps({"w": Call(os.system, touch)}, protocol), system)
        for protocol in (2, 3, 4, 5)
    }
    return found | {
        "global only": (b"cos\nsystem\n.", "os.system"),
        "reduce, protocol 0": (b"cos\nsystem\n(S'" + touch.encode() + b"'\ntR.", "os.system"),
        "stack global": (os_system + text(touch) + b"\x85R.", "os.system"),
        "eval": (pickle.dumps(Call(eval, f"open({str(marker)!r}, 'w')")), "builtins.eval"),
        "inst": (named.replace(b"(i", b"(S'" + touch.encode() + b"'\ni") + b"s.", "INST os system"),
        "obj": (b"(cos\nsystem\nS'" + touch.encode() + b"'\no.", "os.system"),
        "newobj": (pickle.dumps(Stateful(str(marker)), 2), "test_pdparams.Stateful"),
        "build": (pickle.dumps(Call(np.ndarray, state=Stateful(str(marker)))), "test_pdparams.Stateful"),
        "a state for a name": (b"cnumpy\nndarray\n(dS'x'\nI1\nsb.", "a state for something that has none"),
        "persistent id": (b"Pos.system\n.", "PERSID os.system"),
        "binary persistent id": (b"\x80\x02" + text("x") + b"Q.", "BINPERSID"),
        "extension 1": (b"\x80\x02\x82\x01.", "EXT1 1"),
        "extension 2": (b"\x80\x02\x83\x01\x00.", "EXT2 1"),
        "extension 4": (b"\x80\x02\x84\x01\x00\x00\x00.", "EXT4 1"),
        "a paddle tensor's own class": (pickle.dumps(Call(paddle.to_tensor, [1.0])), "paddle.tensor.creation"),
        "objects in an array": (pickle.dumps({"w": np.array([Call(os.system, touch)])}), "dtype 'O8'"),
        "records": (pickle.dumps({"w": np.zeros(2, [("a", "f4")])}), "dtype 'V4'"),
        "a call of a text": (b"\x80\x04" + text("x") + b")R.", "a call of something without a name"),
        "getattr": (b"cbuiltins\ngetattr\n.", "builtins.getattr"),
        "numpy's loader": (b"cnumpy\nload\n.", "numpy.load"),
        "attributes of what is allowed": (b"\x80\x04" + text("numpy") + text("ndarray.__class__") + b"\x93.", "numpy."),
        "a hidden file": (pickle.dumps(Path("/etc/passwd")), "pathlib"),
    }


@pytest.mark.parametrize("name", hostile(Path("marker")))
def test_a_hostile_pickle_is_refused_by_name_and_runs_nothing(tmp_path: Path, name: str) -> None:
    marker = tmp_path / "it ran".replace(" ", "_")
    content, said = hostile(marker)[name]
    file = write(tmp_path / "m.pdparams", content)
    with pytest.raises(CheckpointError) as caught:
        read_pdparams(file)
    message = str(caught.value)
    assert message.startswith(f"{file}: refused, nothing of it was run: it holds ")
    assert said in message
    assert "\n" not in message
    assert caught.value.exit_code == 5
    assert not marker.exists()


@pytest.mark.parametrize("name", ["reduce, protocol 4", "stack global"])
def test_those_files_would_run_code_if_they_were_unpickled(tmp_path: Path, name: str) -> None:
    marker = tmp_path / "ran"
    pickle.loads(hostile(marker)[name][0])  # noqa: S301 - the marker is all it touches
    assert marker.exists()


def test_a_file_cut_anywhere_is_one_line(tmp_path: Path) -> None:
    whole = pickle.dumps({"w": WEIGHT, "b": np.zeros(3)}, 4)
    for length in range(len(whole)):
        file = write(tmp_path / "m.pdparams", whole[:length])
        with pytest.raises(CheckpointError, match=re.escape(f"{file}: not a whole .pdparams (")) as caught:
            read_pdparams(file)
        assert "\n" not in str(caught.value)


def test_a_text_file_is_refused_with_a_reason(tmp_path: Path) -> None:
    file = write(tmp_path / "m.pdparams", b"hi\n")
    with pytest.raises(CheckpointError, match=r"not a whole \.pdparams \(value 105 is used before it is stored\)"):
        read_pdparams(file)


def test_flipped_bytes_end_as_arrays_or_as_one_line(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    whole = bytearray(pickle.dumps({"w": WEIGHT, "s": ("w_0", np.zeros(3)), "n": [1, 2]}, 2))
    for _ in range(500):
        changed = bytearray(whole)
        for place in rng.integers(0, len(whole), 2):
            changed[place] = rng.integers(0, 256)
        said = ""
        try:
            read_pdparams(write(tmp_path / "m.pdparams", bytes(changed)))
        except CheckpointError as error:
            said = str(error)
        assert said.isprintable()


def nested(depth: int) -> bytes:
    return b"\x80\x02)" + b"\x85" * depth


def bombs() -> dict[str, bytes]:
    """Small files that ask for much memory or for deep recursion."""
    core = b"c" + (b"numpy._core" if np.__version__ >= "2" else b"numpy.core") + b".multiarray\n_reconstruct\n"
    side = struct.pack("<i", 2**30)
    shape = b"J" + side + b"J" + side + b"\x86"
    made = core + b"cnumpy\nndarray\nK\x00\x85C\x01b\x87R"
    f4 = b"cnumpy\ndtype\nX\x02\x00\x00\x00f4\x89\x88\x87R"
    big = b"\x80\x02X" + struct.pack("<i", 2**20) + b"x" * 2**20 + b"q\x000"
    encode = b"c_codecs\nencode\n(h\x00X\x06\x00\x00\x00latin1tR"
    return {
        "a shape without its bytes": b"\x80\x03" + made + b"(K\x01" + shape + f4 + b"\x89C\x04abcdtb.",
        "an array made with a shape": b"\x80\x02cnumpy\nndarray\n" + shape + b"\x85R.",
        "bytes made by their number": b"\x80\x02cbuiltins\nbytes\nJ" + side + b"\x85R.",
        "more bytes than there are": b"\x80\x04\x8e" + struct.pack("<Q", 2**40) + b"x.",
        "a memo far out": b"\x80\x02}r\xff\xff\xff\x7f.",
        "one text encoded over and over": big + b"(" + encode * 2000 + b"t.",
        "a key nested deep": b"\x80\x02}" + nested(30_000)[2:] + b"K\x01s.",
        "a dtype nested deep": b"\x80\x02cnumpy\ndtype\n" + nested(30_000)[2:] + b"\x85R.",
        "opcodes without end": b"\x80\x02" + b"N0" * 1_000_001 + b"N.",
    }


@pytest.mark.parametrize("name", bombs())
def test_a_small_file_takes_no_more_memory_than_it_holds(tmp_path: Path, name: str) -> None:
    file = write(tmp_path / "m.pdparams", bombs()[name])
    if name == "opcodes without end":  # tracing memory would make it slow
        with pytest.raises(CheckpointError, match="more than 2000000 opcodes"):
            read_pdparams(file)
        return
    tracemalloc.start()
    try:
        if name == "a memo far out":
            assert read_pdparams(file) == {}
        else:
            with pytest.raises(CheckpointError):
                read_pdparams(file)
        assert tracemalloc.get_traced_memory()[1] < 32 * 2**20
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04", b"hello, this is no pickle", b"\x80\x04.", b"\x80\x02ub."])
def test_what_is_no_pickle_is_said(tmp_path: Path, content: bytes) -> None:
    with pytest.raises(CheckpointError, match=r"not a whole \.pdparams"):
        read_pdparams(write(tmp_path / "m.pdparams", content))


def test_what_is_no_file_is_said(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")  # opened, it would block for ever
    with pytest.raises(CheckpointError, match=r"pipe: not a file; expected a \.pdparams"):
        read_pdparams(tmp_path / "pipe")
    with pytest.raises(CheckpointError, match=r"can't be read \(No such file or directory\)"):
        read_pdparams(tmp_path / "absent.pdparams")
