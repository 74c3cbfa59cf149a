"""Files that `torch.save` wrote, read by PyTorch's own restricted reader: tensors and plain containers, no code.

PyTorch is an extra. `weights_only` of versions before 2.6 could be made to run code (CVE-2025-32434), so those are not
used.
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
_TAR = b"ustar"  # at byte 257; PyTorch before 0.2


def is_torch_file(path: Path) -> bool:
    """Whether the file begins as torch.save writes it, in one of its forms."""
    try:
        if not path.is_file():
            return False
        with path.open("rb") as file:
            return _begins_well(file.read(_START))
    except OSError:
        return False


def read_torch(path: Path) -> Any:
    """What `path` holds: NumPy arrays for tensors, in dicts and lists, beside numbers and texts.

    Both of PyTorch's formats are read, the one of 1.6 and later and the one before. Nothing of the file is run. Raises
    CheckpointError where it holds more than data or is damaged, EnvironmentProblem where PyTorch is missing or too old.
    """
    try:
        if not path.is_file():  # a pipe would block for ever
            raise CheckpointError(f"{path}: no such file; expected a .pth that torch.save wrote")
        size = path.stat().st_size
        _check_form(path, size)
        torch = _import_torch()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of storages of old files: nothing that a user can mend
            content = torch.load(path, map_location="cpu", weights_only=True)
    except R3DFastError:
        raise
    except OSError as error:
        raise CheckpointError(f"{path}: can't be read ({error.strerror or error})") from error
    except Exception as error:  # UnpicklingError, RuntimeError, EOFError, ...: whatever damaged bytes lead to
        raise CheckpointError(f"{path}: {_reason(error)}") from error
    return _plain(content, torch, size, path)


def _check_form(path: Path, size: int) -> None:
    """Raise CheckpointError unless the file begins like one of torch.save and doesn't unpack to more than it is."""
    with path.open("rb") as file:
        start = file.read(_START)
    if start[257:].startswith(_TAR):
        raise CheckpointError(
            f"{path}: the tar form of PyTorch before 0.2, which can't be read without running what it holds; load and "
            "save it anew with PyTorch, if you trust it"
        )
    if not _begins_well(start):
        raise CheckpointError(f"{path}: not a .pth ({size} bytes that begin otherwise); fetch it again")
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            claimed = sum(item.file_size for item in archive.infolist())
        if claimed > size:  # PyTorch doesn't compress
            raise CheckpointError(f"{path}: {size} bytes that unpack to {claimed}; not what torch.save writes")


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
            f"PyTorch {torch.__version__} may run code of a .pth file (CVE-2025-32434), 2.6 and later don't; {_INSTALL}"
        )
    return torch  # type: ignore[no-any-return]


def _reason(error: Exception) -> str:
    text = str(error)
    if "weights only" in text.lower() or "weights_only" in text:
        named = _REFUSED.search(text)
        what = f"it asks for {named[1]}" if named else "it holds more than data"
        return f"refused, nothing of it was run: {what}; expected a state dict, tensors in plain containers"
    said = printable(ValueError(text.split(". ")[0]) if text else error)
    return f"not a whole .pth ({said}); it may be cut short or damaged: fetch it again"


def _plain(content: Any, torch: ModuleType, size: int, path: Path) -> Any:
    """`content` with arrays for tensors."""
    if isinstance(content, torch.Tensor):
        if content.numel() * content.element_size() > size:
            raise CheckpointError(
                f"{path}: a tensor of shape {list(content.shape)} in {size} bytes; not what weights look like"
            )
        dense = content.detach().to_dense() if content.layout is not torch.strided else content.detach()
        return (dense.float() if dense.dtype is torch.bfloat16 else dense).numpy()
    if isinstance(content, dict):
        return {key: _plain(value, torch, size, path) for key, value in content.items()}
    if isinstance(content, (list, tuple)):
        return [_plain(value, torch, size, path) for value in content]
    return content
