"""Files of torch.save are read to the same numbers; hostile ones run nothing. Without PyTorch it is said what to do."""

from __future__ import annotations

import io
import os
import pickle
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny

from pipelines.errors import EnvironmentProblem
from r3d_fast.errors import CheckpointError
from r3d_fast.weights.foreign.torch_file import is_torch_file, read_torch

WITHOUT = "PyTorch is not installed: pip install 'r3d-fast[torch]'"


@pytest.fixture
def torch() -> Any:
    return pytest.importorskip("torch", reason=WITHOUT)


class Call:
    """Pickles as a call of `function`."""

    def __init__(self, function: Any, *arguments: Any) -> None:
        self.parts = (function, arguments)

    def __reduce__(self) -> Any:
        return self.parts


def saved(torch: Any, content: Any, path: Path, form: str = "zip") -> Path:
    torch.save(content, path, _use_new_zipfile_serialization=form == "zip")
    return path


@pytest.mark.parametrize("form", ["zip", "legacy"])
def test_a_checkpoint_of_either_form_is_read_to_the_same_numbers(torch: Any, tmp_path: Path, form: str) -> None:
    network = torch.nn.Sequential(torch.nn.Conv3d(3, 4, 3), torch.nn.BatchNorm3d(4))
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1, momentum=0.9)
    network(torch.rand(2, 3, 4, 4, 4)).sum().backward()
    optimizer.step()
    state = torch.nn.DataParallel(network).state_dict()
    content = {"epoch": 3, "arch": "resnet-18", "state_dict": state, "optimizer": optimizer.state_dict()}
    file = saved(torch, content, tmp_path / "m.pth", form)
    assert is_torch_file(file)
    found = read_torch(file)
    assert (found["epoch"], found["arch"]) == (3, "resnet-18")
    assert found["state_dict"].keys() == state.keys()
    for name, tensor in state.items():
        np.testing.assert_array_equal(found["state_dict"][name], tensor.numpy(), err_msg=name)
    half = saved(torch, {"w": torch.ones(2, dtype=torch.bfloat16)}, tmp_path / "h.pth", form)
    np.testing.assert_array_equal(read_torch(half)["w"], np.ones(2, np.float32))


@pytest.mark.parametrize("form", ["zip", "legacy"])
def test_a_hostile_file_is_refused_by_name_and_runs_nothing(torch: Any, tmp_path: Path, form: str) -> None:
    marker = tmp_path / "ran"
    file = saved(torch, {"w": Call(os.system, f"touch {marker}")}, tmp_path / "m.pth", form)
    with pytest.raises(CheckpointError) as caught:
        read_torch(file)
    assert str(caught.value) == (
        f"{file}: refused, nothing of it was run: it asks for posix.system; expected a state dict, tensors in plain "
        "containers"
    )
    assert not marker.exists()
    torch.load(file, weights_only=False)
    assert marker.exists()  # the file is what it is said to be


def test_a_whole_network_in_a_file_is_refused(torch: Any, tmp_path: Path) -> None:
    file = saved(torch, torch.nn.Linear(2, 2), tmp_path / "m.pth")
    with pytest.raises(CheckpointError, match=r"it asks for torch\.nn\.modules\.linear\.Linear; expected a state dict"):
        read_torch(file)


@pytest.mark.parametrize("form", ["zip", "legacy"])
def test_a_file_cut_short_is_one_line(torch: Any, tmp_path: Path, form: str) -> None:
    whole = saved(torch, {"w": torch.zeros(500)}, tmp_path / "m.pth", form).read_bytes()
    for length in (0, 1, 40, 200, len(whole) // 2, len(whole) - 1):
        (tmp_path / "cut.pth").write_bytes(whole[:length])
        with pytest.raises(CheckpointError) as caught:
            read_torch(tmp_path / "cut.pth")
        assert len(str(caught.value).splitlines()) == 1


def test_a_small_file_takes_no_more_memory_than_it_holds(torch: Any, tmp_path: Path) -> None:
    expanded = saved(torch, {"w": torch.zeros(1).expand(2**40)}, tmp_path / "e.pth")
    with pytest.raises(CheckpointError, match=r"a tensor of shape \[1099511627776\]"):
        read_torch(expanded)
    with zipfile.ZipFile(tmp_path / "z.pth", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data.pkl", bytes(10**7))
    with pytest.raises(CheckpointError, match=r"that unpack to 10000000; expected a file of torch\.save"):
        read_torch(tmp_path / "z.pth")


def test_what_is_no_pth_is_said_with_pytorch_or_without(tmp_path: Path) -> None:
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
    with pytest.raises(CheckpointError, match=r"expected a \.pth that torch\.save"):
        read_torch(tmp_path / "pipe")


@pytest.mark.parametrize(
    ("version", "said"),
    [
        (None, "reading a .pth needs PyTorch, which can't be imported (No module named 'torch'); "),
        ("2.5.1", "PyTorch 2.5.1 may run code in a .pth file (CVE-2025-32434); expected 2.6 or later; "),
    ],
)
def test_pytorch_that_is_missing_or_too_old_ends_with_4(tmp_path: Path, version: str | None, said: str) -> None:
    (tmp_path / "m.pth").write_bytes(b"PK\x03\x04")
    stand_in = (
        "raise ModuleNotFoundError(\"No module named 'torch'\")" if version is None else f"__version__ = '{version}'"
    )
    (tmp_path / "torch.py").write_text(stand_in, encoding="utf-8")
    code = "import sys; from r3d_fast.cli import main; main(['import-weights', 'm.pth', '-o', 'w.safetensors'])"
    paths = os.pathsep.join([str(tmp_path), str(tiny.REPO)])
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env={**os.environ, "PYTHONPATH": paths}, capture_output=True,
        text=True, check=False,
    )  # fmt: skip
    assert done.returncode == EnvironmentProblem.exit_code
    assert done.stderr == f"r3d-fast: {said}install it with: pip install 'r3d-fast[torch]'\n"
