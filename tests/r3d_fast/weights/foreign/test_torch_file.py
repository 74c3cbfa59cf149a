"""Files of torch.save are read without PyTorch to the same numbers; hostile and damaged ones are one line."""

from __future__ import annotations

import collections
import io
import os
import pickle
import re
import tarfile
import tracemalloc
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from torch_files import Name, Storage, Tensor, write_torch

from r3d_fast.errors import CheckpointError
from r3d_fast.weights.foreign.torch_file import is_torch_file, read_torch

WEIGHT = np.arange(24, dtype=np.float32).reshape(2, 3, 4)
BITS = np.array([0x3F80, 0xC000, 0x3EAB, 0x0000], np.uint16)  # 1, -2, 0.333984375 and 0 as bfloat16
FORMS = pytest.mark.parametrize("legacy", [False, True], ids=["zip", "legacy"])


class Call:
    """Pickles as a call of `function`."""

    def __init__(self, function: Any, *arguments: Any) -> None:
        self.parts = (function, arguments)

    def __reduce__(self) -> Any:
        return self.parts


@FORMS
def test_a_checkpoint_is_read_to_its_numbers(tmp_path: Path, legacy: bool) -> None:
    rng = np.random.default_rng(0)
    tensors = {
        code: rng.integers(0, 2, (2, 3)).astype(code) if code in ("i8", "b1") else rng.random((2, 3)).astype(code)
        for code in ("f2", "f4", "f8", "i8", "b1")
    }
    state: dict[str, Any] = collections.OrderedDict(tensors, none=np.zeros((0, 3), np.float32), one=np.float32(2.5))
    content = {
        "epoch": 3, "arch": "resnet-18", "state_dict": state, "best": np.float64(0.5),
        "scheduler": {"milestones": collections.Counter({50: 1, 100: 1}), "lr": [0.1, None, True, 2**70]},
        "optimizer": {"state": {0: {"momentum_buffer": WEIGHT}}, "param_groups": [{"params": [0, 1]}]},
        "size": Call(Name("torch", "Size"), (2, 3)), "device": Call(Name("torch", "device"), "cuda", 0),
        "set": Call(Name("__builtin__", "set"), [1, 2]),
    }  # fmt: skip
    file = write_torch(tmp_path / "m.pth", content, legacy=legacy)
    assert is_torch_file(file)
    found = read_torch(file)
    assert (found["epoch"], found["arch"], found["best"]) == (3, "resnet-18", 0.5)
    assert found["scheduler"] == {"milestones": {50: 1, 100: 1}, "lr": [0.1, None, True, 2**70]}
    assert (found["size"], found["device"], found["set"]) == ((2, 3), "cuda:0", [1, 2])
    assert found["state_dict"].keys() == state.keys()
    for name, array in state.items():
        assert found["state_dict"][name].dtype == array.dtype
        np.testing.assert_array_equal(found["state_dict"][name], array, err_msg=name)
    np.testing.assert_array_equal(found["optimizer"]["state"][0]["momentum_buffer"], WEIGHT)


@FORMS
@pytest.mark.parametrize("order", ["little", "big"])
def test_bfloat16_and_either_order_of_bytes_come_through(tmp_path: Path, legacy: bool, order: str) -> None:
    content = {"b": Tensor(Storage(BITS), (2, 2), (2, 1)), "f": WEIGHT, "h": WEIGHT.astype(np.float16)}
    found = read_torch(write_torch(tmp_path / "m.pth", content, legacy=legacy, order=order))
    np.testing.assert_array_equal(found["b"], np.array([[1, -2], [0.333984375, 0]], np.float32))
    assert found["b"].dtype == np.float32
    np.testing.assert_array_equal(found["f"], WEIGHT)
    np.testing.assert_array_equal(found["h"], WEIGHT)


@FORMS
def test_tensors_that_share_a_storage_in_any_strides_are_right(tmp_path: Path, legacy: bool) -> None:
    shared = Storage(WEIGHT.reshape(-1))
    content = {
        "whole": Tensor(shared, (2, 3, 4), (12, 4, 1)),
        "transposed": Tensor(shared, (4, 3, 2), (1, 4, 12)),
        "last channels": Tensor(shared, (2, 3, 4), (12, 1, 3)),
        "part": Tensor(shared, (2, 2), (12, 2), offset=5),
        "expanded": Tensor(shared, (3, 4), (0, 1)),
        "parameter": Tensor(shared, (24,), (1,), parameter=True),
    }
    found = read_torch(write_torch(tmp_path / "m.pth", content, legacy=legacy))
    flat = WEIGHT.reshape(-1)
    np.testing.assert_array_equal(found["whole"], WEIGHT)
    np.testing.assert_array_equal(found["transposed"], WEIGHT.transpose(2, 1, 0))
    np.testing.assert_array_equal(found["last channels"], flat.reshape(2, 4, 3).transpose(0, 2, 1))
    np.testing.assert_array_equal(found["part"], [[5, 7], [17, 19]])
    np.testing.assert_array_equal(found["expanded"], [flat[:4]] * 3)
    np.testing.assert_array_equal(found["parameter"], flat)


def test_a_storage_that_is_a_part_of_another_is_right(tmp_path: Path) -> None:
    """Only in the format before zip."""
    values = np.arange(10, dtype=np.float32)
    content = {"a": Tensor(Storage(values, (4, 3)), (3,), (1,)), "b": Tensor(Storage(values), (10,), (1,))}
    found = read_torch(write_torch(tmp_path / "m.pth", content, legacy=True))
    np.testing.assert_array_equal(found["a"], [4, 5, 6])
    np.testing.assert_array_equal(found["b"], values)
    outside = {"a": Tensor(Storage(values, (4, 30)), (3,), (1,))}
    with pytest.raises(CheckpointError, match="a part of storage 0 that reaches outside of it"):
        read_torch(write_torch(tmp_path / "m.pth", outside, legacy=True))


@FORMS
def test_an_ordered_dict_of_python_2_is_read(tmp_path: Path, legacy: bool) -> None:
    """Its pickles give the items with the name; those of Python 3 fill an empty one."""
    items = Call(collections.OrderedDict, [["w", WEIGHT], ["b", 1]])
    found = read_torch(write_torch(tmp_path / "m.pth", items, legacy=legacy))
    assert found.keys() == {"w", "b"}
    np.testing.assert_array_equal(found["w"], WEIGHT)


@FORMS
@pytest.mark.parametrize(
    ("what", "said"),
    [
        (Name("os", "system"), "os.system"),
        (Call(os.system, "touch {marker}"), "posix.system"),
        (Call(eval, "open('{marker}', 'w')"), "__builtin__.eval"),
        (Name("torch.nn.modules.linear", "Linear"), "torch.nn.modules.linear.Linear"),
        (Name("argparse", "Namespace"), "argparse.Namespace"),
        (Call(Name("torch.jit", "load"), "x"), "torch.jit.load"),
        (Call(Name("torch", "load"), "x"), "torch.load"),
        (Call(Name("torch", "FloatStorage"), 2**40), "a call of something without a name"),
    ],
)
def test_a_hostile_file_is_refused_by_name_and_runs_nothing(tmp_path: Path, legacy: bool, what: Any, said: str) -> None:
    marker = tmp_path / "ran"
    if isinstance(what, Call):
        what = Call(what.parts[0], *(str(part).format(marker=marker) for part in what.parts[1]))
    file = write_torch(tmp_path / "m.pth", {"w": what}, legacy=legacy)
    with pytest.raises(CheckpointError) as caught:
        read_torch(file)
    assert str(caught.value) == (
        f"{file}: refused, nothing of it was run: it holds {said}; expected tensors in plain containers, as torch.save "
        "writes a state dict"
    )
    assert not marker.exists()


def test_what_lies_outside_of_the_pickle_has_to_be_a_storage(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "m.pth", "w") as archive:
        archive.writestr("archive/data.pkl", b"\x80\x02(X\x06\x00\x00\x00moduleX\x01\x00\x00\x00xtQ.")
    with pytest.raises(CheckpointError, match="it holds something outside of its pickle that is no storage"):
        read_torch(tmp_path / "m.pth")


@FORMS
def test_a_file_cut_anywhere_is_one_line(tmp_path: Path, legacy: bool) -> None:
    whole = write_torch(tmp_path / "m.pth", {"w": np.zeros(30, np.float32)}, legacy=legacy).read_bytes()
    for length in range(len(whole)):
        (tmp_path / "cut.pth").write_bytes(whole[:length])
        with pytest.raises(CheckpointError, match=re.escape(str(tmp_path / "cut.pth"))) as caught:
            read_torch(tmp_path / "cut.pth")
        assert len(str(caught.value).splitlines()) == 1


@FORMS
def test_flipped_bytes_end_as_arrays_or_as_one_line(tmp_path: Path, legacy: bool) -> None:
    rng = np.random.default_rng(0)
    whole = write_torch(tmp_path / "m.pth", {"w": WEIGHT, "n": [1, 2]}, legacy=legacy).read_bytes()
    for _ in range(500):
        changed = bytearray(whole)
        for place in rng.integers(0, len(whole), 2):
            changed[place] = rng.integers(0, 256)
        (tmp_path / "m.pth").write_bytes(bytes(changed))
        said = ""
        try:
            read_torch(tmp_path / "m.pth")
        except CheckpointError as error:
            said = str(error)
        assert said.isprintable()


@FORMS
@pytest.mark.parametrize(
    ("tensor", "said"),
    [
        (
            Tensor(Storage(WEIGHT.reshape(-1)), (2**40,), (0,)),
            r"a tensor of shape \[1099511627776\] in a file of \d+ b",
        ),
        (Tensor(Storage(WEIGHT.reshape(-1)), (25,), (1,)), "a tensor that reaches to number 24 of a storage of 24"),
        (Tensor(Storage(WEIGHT.reshape(-1)), (2,), (1,), offset=23), "a tensor that reaches to number 24 of a storage"),
        (Tensor(Storage(WEIGHT.reshape(-1)), (2,), (-1,), offset=2), r"a tensor of shape \[2\], strides \[-1\]"),
        (Tensor(Storage(WEIGHT.reshape(-1)), (2,), (1,), offset=-1), r"a tensor of shape \[2\], strides \[1\], offs"),
        (Tensor(Storage(WEIGHT.reshape(-1)), (2, 2), (1,)), r"a tensor of shape \[2, 2\], strides \[1\]"),
    ],
)
def test_a_tensor_has_to_lie_in_its_storage(tmp_path: Path, legacy: bool, tensor: Tensor, said: str) -> None:
    file = write_torch(tmp_path / "m.pth", {"w": tensor}, legacy=legacy)
    with pytest.raises(CheckpointError, match=said):
        read_torch(file)


def test_a_small_file_takes_no_more_memory_than_it_holds(tmp_path: Path) -> None:
    values = np.zeros(2**12, np.float32)
    many = {str(number): Tensor(Storage(values), (2**12,), (1,)) for number in range(600)}
    claims = write_torch(tmp_path / "claims.pth", {"w": values}, legacy=True).read_bytes()
    # 4096 numbers, in three bytes of the pickle and eight before the numbers, are made 2 to the power of 30.
    pickled = claims.replace(b"M\x00\x10", b"J\x00\x00\x00\x40").replace(
        (2**12).to_bytes(8, "little"), b"\0\0\0\x40" + b"\0" * 4
    )
    (tmp_path / "claims.pth").write_bytes(pickled)
    with zipfile.ZipFile(tmp_path / "deflated.pth", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data.pkl", bytes(10**7))
    for name, said in (
        (write_torch(tmp_path / "zip.pth", many), "expected all its numbers"),
        (write_torch(tmp_path / "legacy.pth", many, legacy=True), "expected all its numbers"),
        (tmp_path / "claims.pth", "storages up to 0 with more numbers than the file"),
        (tmp_path / "deflated.pth", r"that unpack to 10000000; expected a file of torch\.save"),
    ):
        tracemalloc.start()
        try:
            with pytest.raises(CheckpointError, match=said):
                read_torch(name)
            assert tracemalloc.get_traced_memory()[1] < 2**21
        finally:
            tracemalloc.stop()


def test_storages_of_the_wrong_size_or_missing_are_said(tmp_path: Path) -> None:
    def archive(name: str, **files: bytes) -> Path:
        with (
            zipfile.ZipFile(write_torch(tmp_path / "whole.pth", {"w": WEIGHT})) as whole,
            zipfile.ZipFile(tmp_path / name, "w") as other,
        ):
            for item in whole.namelist():
                content = files.get(item.rpartition("/")[2].replace(".", "_"), whole.read(item))
                if content:
                    other.writestr(item, content)
        return tmp_path / name

    with pytest.raises(CheckpointError, match="storage 0 of 8 bytes; expected 96"):
        read_torch(archive("short.pth", **{"0": bytes(8)}))
    with pytest.raises(CheckpointError, match="There is no item named 'archive/data/0'"):
        read_torch(archive("absent.pth", **{"0": b""}))
    with pytest.raises(CheckpointError, match=r"an archive with 0 files data\.pkl"):
        read_torch(archive("no.pth", data_pkl=b""))


def test_what_is_no_pth_is_said(tmp_path: Path) -> None:
    (tmp_path / "page.pth").write_bytes(b"<!DOCTYPE html>")
    (tmp_path / "plain.pth").write_bytes(pickle.dumps({"w": 1}))
    for name in ("page.pth", "plain.pth"):
        assert not is_torch_file(tmp_path / name)
        with pytest.raises(CheckpointError, match=r"not a \.pth"):
            read_torch(tmp_path / name)
    with tarfile.open(tmp_path / "old.pth", "w") as archive:
        archive.addfile(tarfile.TarInfo("storages"), io.BytesIO())
    with pytest.raises(CheckpointError, match=r"the tar format of PyTorch before 0\.2"):
        read_torch(tmp_path / "old.pth")
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "folder").mkdir()
    for name, what in (
        ("pipe", "a pipe or a device, not a file"), ("folder", "a folder, not a file"), ("absent", "no such file"),
    ):  # fmt: skip
        with pytest.raises(CheckpointError, match=rf"{name}: {what}; expected a \.pth that torch\.save"):
            read_torch(tmp_path / name)
