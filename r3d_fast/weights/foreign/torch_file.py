"""Reads files that `torch.save` wrote, with PyTorch's own restricted reader: tensors and plain containers, no code.

PyTorch is an optional dependency. Versions before 2.6 could be made to run code in spite of `weights_only`
(CVE-2025-32434), so they are refused.
"""

from __future__ import annotations

import re
import warnings
import zipfile
from pathlib import Path
from types import ModuleType
from typing import Any

from pipelines.errors import EnvironmentProblem, R3DFastError
from r3d_fast.errors import CheckpointError
from r3d_fast.weights.foreign.pdparams import printable

_OLDEST = (2, 6)
_INSTALL = "install it with: pip install 'r3d-fast[torch]'"
_REFUSED = re.compile(r"GLOBAL ([\w.]+)")
_LEGACY_MAGIC = 0x1950A86A20F9469CFC6C.to_bytes(10, "little")  # torch.serialization.MAGIC_NUMBER
_START = 512
_TAR = b"ustar"  # at byte 257 of files of PyTorch before 0.2


def is_torch_file(path: Path) -> bool:
    """Whether the file begins like one that torch.save wrote, in one of its formats."""
    try:
        if not path.is_file():
            return False
        with path.open("rb") as file:
            return _begins_well(file.read(_START))
    except OSError:
        return False


def read_torch(path: Path) -> Any:
    """The content of `path`: dicts and lists of numbers, texts and NumPy arrays, which stand for tensors.

    The zip format of PyTorch 1.6 and later is read, and the format before it. No code of the file is run. Raises
    CheckpointError where it holds more than data or is damaged, EnvironmentProblem where PyTorch is missing or too old.
    """
    try:
        if not path.is_file():  # reading a pipe would block
            raise CheckpointError(f"{path}: no such file; expected a .pth that torch.save wrote")
        size = path.stat().st_size
        _check_form(path, size)
        torch = _import_torch()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about the storages of old files, which the user can't change
            content = torch.load(path, map_location="cpu", weights_only=True)
    except R3DFastError:
        raise
    except OSError as error:
        raise CheckpointError(f"{path}: can't be read ({error.strerror or error})") from error
    except Exception as error:  # UnpicklingError, RuntimeError, EOFError, ...: damaged bytes may lead to any
        raise CheckpointError(f"{path}: {_reason(error)}") from error
    return _plain(content, torch, size, path)


def _check_form(path: Path, size: int) -> None:
    """Raise CheckpointError unless the file begins like one of torch.save and unpacks to no more than its size."""
    with path.open("rb") as file:
        start = file.read(_START)
    if start[257:].startswith(_TAR):
        raise CheckpointError(
            f"{path}: the tar format of PyTorch before 0.2, which can't be read without running code of the file; if "
            "you trust it, load it with PyTorch and save it again"
        )
    if not _begins_well(start):
        raise CheckpointError(f"{path}: not a .pth: its {size} bytes don't begin like one; download it again")
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            claimed = sum(item.file_size for item in archive.infolist())
        if claimed > size:  # PyTorch doesn't compress
            raise CheckpointError(
                f"{path}: {size} bytes that unpack to {claimed}; expected a file of torch.save, which doesn't compress"
            )


def _begins_well(start: bytes) -> bool:
    return start.startswith(b"PK") or _LEGACY_MAGIC in start[:32]


def _import_torch() -> ModuleType:
    try:
        import torch
    except ImportError as error:
        raise EnvironmentProblem(
            f"reading a .pth needs PyTorch, which can't be imported ({error}); {_INSTALL}"
        ) from error
    version = tuple(int(part) for part in re.findall(r"\d+", torch.__version__)[:2])
    if version < _OLDEST:
        raise EnvironmentProblem(
            f"PyTorch {torch.__version__} may run code in a .pth file (CVE-2025-32434); expected 2.6 or later; "
            f"{_INSTALL}"
        )
    return torch  # type: ignore[no-any-return]


def _reason(error: Exception) -> str:
    text = str(error)
    if "weights only" in text.lower() or "weights_only" in text:
        named = _REFUSED.search(text)
        what = f"it asks for {named[1]}" if named else "it holds more than data"
        return f"refused, nothing of it was run: {what}; expected a state dict, tensors in plain containers"
    problem = printable(ValueError(text.split(". ")[0]) if text else error)
    return f"not a whole .pth ({problem}); it may be cut short or damaged: download it again"


def _plain(content: Any, torch: ModuleType, size: int, path: Path) -> Any:
    """`content` with NumPy arrays in place of tensors; `size` is that of the file, in bytes."""
    if isinstance(content, torch.Tensor):
        if content.numel() * content.element_size() > size:
            raise CheckpointError(
                f"{path}: a tensor of shape {list(content.shape)} in a file of {size} bytes; expected all its numbers"
            )
        dense = content.detach().to_dense() if content.layout is not torch.strided else content.detach()
        return (dense.float() if dense.dtype is torch.bfloat16 else dense).numpy()
    if isinstance(content, dict):
        return {key: _plain(value, torch, size, path) for key, value in content.items()}
    if isinstance(content, (list, tuple)):
        return [_plain(value, torch, size, path) for value in content]
    return content
