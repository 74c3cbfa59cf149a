"""What PyTorch itself saves is read to what PyTorch reads, and what the tests write as it does PyTorch reads too."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from torch_files import Storage, Tensor, write_torch

from r3d_fast.errors import CheckpointError
from r3d_fast.weights.foreign.torch_file import is_torch_file, read_torch

torch = pytest.importorskip("torch", reason="PyTorch is not installed; test_torch_file.py has files made without it")
FORMS = pytest.mark.parametrize("legacy", [False, True], ids=["zip", "legacy"])


def saved(content: Any, path: Path, legacy: bool) -> Path:
    torch.save(content, path, _use_new_zipfile_serialization=not legacy)
    return path


def assert_read(file: Path) -> None:
    """What is read is what PyTorch reads, tensor by tensor."""
    found, expected = read_torch(file), torch.load(file, weights_only=True)
    assert found.keys() == expected.keys()
    for name, tensor in expected.items():
        tensor = tensor.detach()
        wanted = (tensor.float() if tensor.dtype is torch.bfloat16 else tensor).numpy()
        assert (found[name].dtype, found[name].shape) == (wanted.dtype, wanted.shape), name
        np.testing.assert_array_equal(found[name], wanted, err_msg=name)


@FORMS
def test_a_checkpoint_of_either_form_is_read_to_the_same_numbers(tmp_path: Path, legacy: bool) -> None:
    network = torch.nn.Sequential(torch.nn.Conv3d(3, 4, 3), torch.nn.BatchNorm3d(4))
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1, momentum=0.9)
    scheduler = torch.optim.lr_scheduler.MultiStepLR(optimizer, [50, 100])
    network(torch.rand(2, 3, 4, 4, 4)).sum().backward()
    optimizer.step()
    state = torch.nn.DataParallel(network).state_dict()
    content = {
        "epoch": 3, "arch": "resnet-18", "state_dict": state, "optimizer": optimizer.state_dict(),
        "scheduler": scheduler.state_dict(),
    }  # fmt: skip
    file = saved(content, tmp_path / "m.pth", legacy)
    assert is_torch_file(file)
    found = read_torch(file)
    assert (found["epoch"], found["arch"], found["scheduler"]["milestones"]) == (3, "resnet-18", {50: 1, 100: 1})
    assert found["state_dict"].keys() == state.keys()
    for name, tensor in state.items():
        np.testing.assert_array_equal(found["state_dict"][name], tensor.numpy(), err_msg=name)


@FORMS
def test_every_kind_of_tensor_is_read_as_pytorch_reads_it(tmp_path: Path, legacy: bool) -> None:
    base = torch.arange(24.0).reshape(2, 3, 4)
    marked = torch.ones(2)
    marked.note = "a tensor with an attribute is saved in another way"
    kinds = (torch.float64, torch.float16, torch.bfloat16, torch.int64, torch.int32, torch.int16, torch.int8,
             torch.uint8, torch.bool)  # fmt: skip
    content = {
        **{str(kind): base.to(kind) for kind in kinds},
        "base": base, "transposed": base.permute(2, 0, 1), "part": base[1:, ::2, 1:3],
        "expanded": base[0].expand(3, 3, 4),
        "parameter": torch.nn.Parameter(base), "scalar": torch.tensor(2.5), "none": torch.zeros(0, 3),
        "last": torch.rand(2, 3, 2, 4, 4).contiguous(memory_format=torch.channels_last_3d), "marked": marked,
        "half of bfloat16": base.to(torch.bfloat16)[:, 1],
    }  # fmt: skip
    assert_read(saved(content, tmp_path / "m.pth", legacy))


@FORMS
def test_what_is_written_without_pytorch_is_what_pytorch_reads(tmp_path: Path, legacy: bool) -> None:
    values = np.random.default_rng(0).random(24).astype(np.float32)
    shared = Storage(values)
    content = {
        "plain": values.reshape(2, 3, 4), "half": values.astype(np.float16), "strided": Tensor(shared, (4, 3), (1, 8)),
        "parameter": Tensor(shared, (4,), (1,), offset=2, parameter=True),
        "bfloat16": Tensor(Storage(np.array([0x3F80, 0xC000], np.uint16)), (2,), (1,)),
    }  # fmt: skip
    assert_read(write_torch(tmp_path / "m.pth", content, legacy=legacy))


@FORMS
def test_a_hostile_file_that_would_run_code_is_refused(tmp_path: Path, legacy: bool) -> None:
    class Call:
        def __reduce__(self) -> Any:
            return os.system, (f"touch {tmp_path / 'ran'}",)

    file = saved({"w": Call()}, tmp_path / "m.pth", legacy)
    with pytest.raises(CheckpointError, match=r"it holds posix\.system; expected tensors in plain containers"):
        read_torch(file)
    assert not (tmp_path / "ran").exists()
    torch.load(file, weights_only=False)
    assert (tmp_path / "ran").exists()  # the file is what it is said to be
    network = saved(torch.nn.Linear(2, 2), tmp_path / "network.pth", legacy)
    with pytest.raises(CheckpointError, match=r"it holds torch\.nn\.modules\.linear\.Linear; expected tensors"):
        read_torch(network)


@FORMS
def test_a_file_cut_short_is_one_line(tmp_path: Path, legacy: bool) -> None:
    whole = saved({"w": torch.zeros(500)}, tmp_path / "m.pth", legacy).read_bytes()
    for length in (0, 1, 40, 200, len(whole) // 2, len(whole) - 1):
        (tmp_path / "cut.pth").write_bytes(whole[:length])
        with pytest.raises(CheckpointError) as caught:
            read_torch(tmp_path / "cut.pth")
        assert len(str(caught.value).splitlines()) == 1
