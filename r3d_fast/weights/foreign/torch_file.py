"""Reads files that `torch.save` wrote, without PyTorch: tensors as NumPy arrays in plain containers, no code is run.

Two formats are read. Since PyTorch 1.6 a file is a zip archive: `data.pkl` is a pickle that describes the tensors, and
`data/0`, `data/1`, ... are the bytes of their storages, in the order of bytes that `byteorder` names. Before that
(PyTorch 0.2 to 1.5, and where a program asks for it) it is five pickles one after another (a magic number, the version
of the format, the machine, the tensors, the keys of the storages), and then the storages, each after its length. A
tensor is a shape and strides on a storage, which several tensors may share. Sources: torch/serialization.py and
torch/_utils.py.
"""

from __future__ import annotations

import io
import math
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO, Literal

import numpy as np
from numpy.typing import NDArray

from pipelines.errors import R3DFastError
from r3d_fast.errors import CheckpointError
from r3d_fast.weights.foreign.pickle_limits import Forbidden, described, printable, whole_numbers
from r3d_fast.weights.foreign.pickle_reader import KnownName, PickleReader
from r3d_fast.weights.tensor_reader import require_memory

_LEGACY_MAGIC = 0x1950A86A20F9469CFC6C  # torch.serialization.MAGIC_NUMBER
_LEGACY_VERSION = 1001  # torch.serialization.PROTOCOL_VERSION
_START = 512
_TAR = b"ustar"  # at byte 257 of files of PyTorch before 0.2
MOST_TIMES = 16  # the bytes of all tensors together, as a multiple of the file: tensors may share storages
_LONGEST_DEVICE = 100  # characters
_STORAGES = {
    "DoubleStorage": "f8", "FloatStorage": "f4", "HalfStorage": "f2", "LongStorage": "i8", "IntStorage": "i4",
    "ShortStorage": "i2", "CharStorage": "i1", "ByteStorage": "u1", "BoolStorage": "b1", "BFloat16Storage": "bfloat16",
}  # fmt: skip


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

    Tensors of bfloat16 become float32, others keep their type. No code of the file is run. Raises CheckpointError where
    it holds more than data, asks for more memory than it has bytes, or is damaged; EnvironmentProblem where it is
    larger than the free memory.
    """
    try:
        if not path.is_file():  # reading a pipe would block
            raise CheckpointError(f"{path}: {_no_file(path)}; expected a .pth that torch.save wrote")
        require_memory(path, path.stat().st_size)
        with path.open("rb") as file:
            is_zip = _check_form(path, file)
            return _read_zip(file) if is_zip else _read_legacy(file)
    except R3DFastError:
        raise
    except Forbidden as error:
        raise CheckpointError(
            f"{path}: refused, nothing of it was run: it holds {printable(error)}; expected tensors in plain "
            "containers, as torch.save writes a state dict"
        ) from error
    except OSError as error:
        raise CheckpointError(f"{path}: can't be read ({error.strerror or error})") from error
    except Exception as error:  # damaged bytes may lead to any error
        raise CheckpointError(
            f"{path}: not a whole .pth ({printable(error)}); it may be cut short or damaged: download it again"
        ) from error


def _no_file(path: Path) -> str:
    """What `path`, which is no regular file, is."""
    if not path.exists():
        return "no such file"
    return "a folder, not a file" if path.is_dir() else "a pipe or a device, not a file"


def _check_form(path: Path, file: BinaryIO) -> bool:
    """Whether the file is a zip archive. Raises CheckpointError unless it begins like a file of torch.save.

    Also raises it for an archive that unpacks to more than its own size.
    """
    start, size = file.read(_START), path.stat().st_size
    file.seek(0)
    if start[257:].startswith(_TAR):
        raise CheckpointError(
            f"{path}: the tar format of PyTorch before 0.2, which can't be read without running code of the file; if "
            "you trust it, load it with PyTorch and save it again"
        )
    if not _begins_well(start):
        raise CheckpointError(f"{path}: not a .pth: its {size} bytes don't begin like one; download it again")
    if not start.startswith(b"PK"):
        return False
    with zipfile.ZipFile(file) as archive:
        claimed = sum(item.file_size for item in archive.infolist())
    if claimed > size:  # PyTorch doesn't compress
        raise CheckpointError(
            f"{path}: {size} bytes that unpack to {claimed}; expected a file of torch.save, which doesn't compress"
        )
    return True


def _begins_well(start: bytes) -> bool:
    return start.startswith(b"PK") or _LEGACY_MAGIC.to_bytes(10, "little") in start[:32]


class _StorageType:
    """The type of a storage, as a file names it: `dtype` is that of the bytes in the file."""

    def __init__(self, name: str) -> None:
        self.is_bfloat16 = _STORAGES[name] == "bfloat16"
        self.dtype = np.dtype("u2" if self.is_bfloat16 else _STORAGES[name])

    def values(self, content: bytes, order: Literal["<", ">"]) -> NDArray[Any]:
        """The numbers in `content`, one-dimensional; `order` is that of the bytes, "<" or ">"."""
        stored: NDArray[Any] = np.frombuffer(content, self.dtype.newbyteorder(order))
        # A bfloat16 is the upper half of a float32.
        return (stored.astype(np.uint32) << 16).view(np.float32) if self.is_bfloat16 else stored


class _Storage:
    """The numbers that tensors share: an array of one dimension."""

    def __init__(self, values: NDArray[Any]) -> None:
        self.values = values


class _Tensors:
    """Makes arrays of what the pickle says about tensors, in a file of `size` bytes."""

    def __init__(self, size: int) -> None:
        self.size = size
        self.left = MOST_TIMES * size  # bytes that further tensors may have

    def names(self) -> dict[str, Any]:
        """The global names by which PyTorch describes tensors."""
        known: dict[str, Callable[..., Any]] = {
            "torch._utils._rebuild_tensor": self.tensor,
            "torch._utils._rebuild_tensor_v2": self.tensor,
            "torch._utils._rebuild_parameter": lambda data, *_: data,
            "torch._utils._rebuild_parameter_with_state": lambda data, *_: data,
            "torch._tensor._rebuild_from_type_v2": self._from_type,
            "torch.Size": lambda sides=(): tuple(whole_numbers(sides)),
            "torch.device": _device,
        }
        kinds = {name: name for name in ("torch.Tensor", "torch.nn.parameter.Parameter")}
        storages = {f"torch.{name}": _StorageType(name) for name in _STORAGES}
        return {name: KnownName(make, bare=False) for name, make in known.items()} | storages | kinds

    def _from_type(self, make: Any, kind: Any, arguments: Any, state: Any) -> Any:
        """What `make`, which PyTorch names for tensors with attributes, makes of `arguments`."""
        if not isinstance(make, KnownName) or not isinstance(arguments, tuple) or make.makes(self._from_type):
            raise Forbidden("a tensor with attributes inside of another, or without its own arguments")
        return make.call(arguments)

    def tensor(self, storage: Any, offset: Any, sides: Any, strides: Any, *_: Any) -> NDArray[Any]:
        """An array of shape `sides` on a storage. Raises ValueError where it would reach outside of it."""
        values = storage.values
        sides, strides = whole_numbers(sides, least=-(2**63)), whole_numbers(strides, least=-(2**63))
        if len(sides) != len(strides) or type(offset) is not int or min([offset, *sides, *strides]) < 0:
            raise ValueError(f"a tensor of shape {sides[:8]}, strides {strides[:8]}, offset {described(offset)}")
        nbytes = math.prod(sides) * values.itemsize
        self.left -= nbytes
        if nbytes > self.size or self.left < 0:
            raise ValueError(f"a tensor of shape {sides[:8]} in a file of {self.size} bytes; expected all its numbers")
        if 0 in sides:
            return np.zeros(sides, values.dtype)
        last = offset + sum((side - 1) * stride for side, stride in zip(sides, strides, strict=True))
        if last >= len(values):
            raise ValueError(f"a tensor that reaches to number {last} of a storage of {len(values)}")
        in_bytes = [stride * values.itemsize for stride in strides]
        array: NDArray[Any] = np.lib.stride_tricks.as_strided(values[offset:], sides, in_bytes, writeable=False)
        return array


def _device(kind: Any, number: Any = None) -> str:
    """The name of a device, such as "cuda:0"."""
    if not isinstance(kind, str) or len(kind) > _LONGEST_DEVICE or not isinstance(number, (int, type(None))):
        raise Forbidden(f"a device of {described(kind)} and {described(number)}; expected its kind and a number")
    return kind if number is None else f"{kind}:{described(number)}"


def _storage_of(about: Any, length: int) -> tuple[_StorageType, str, int]:
    """(type, key, number of elements) in the persistent id `about` of a storage, which has `length` parts."""
    if not isinstance(about, tuple) or len(about) != length or about[0] != "storage":
        raise Forbidden("something outside of its pickle that is no storage")
    _, kind, key, _, count = about[:5]
    if not isinstance(kind, _StorageType):
        raise Forbidden("a storage of an unknown type")
    if not isinstance(key, str) or type(count) is not int or count < 0:
        raise ValueError(f"storage {described(key)} of {described(count)} elements")
    return kind, key, count


def _read_zip(file: BinaryIO) -> Any:
    """The content of a zip archive of torch.save."""
    with zipfile.ZipFile(file) as archive:
        inside = [name for name in archive.namelist() if name.rpartition("/")[2] == "data.pkl"]
        if len(inside) != 1:
            raise ValueError(f"an archive with {len(inside)} files data.pkl")
        folder = inside[0].removesuffix("data.pkl")
        order_file = f"{folder}byteorder"
        order = archive.read(order_file).decode() if order_file in archive.namelist() else "little"
        signs: dict[str, Literal["<", ">"]] = {"little": "<", "big": ">"}
        found: dict[str, tuple[_StorageType, _Storage]] = {}

        def external(about: Any) -> _Storage:
            kind, key, count = _storage_of(about, 5)
            if key not in found:
                content = archive.read(f"{folder}data/{key}")
                if len(content) != count * kind.dtype.itemsize:
                    raise ValueError(f"storage {key} of {len(content)} bytes; expected {count * kind.dtype.itemsize}")
                found[key] = kind, _Storage(kind.values(content, signs[order]))
            if found[key][0] is not kind:
                raise ValueError(f"storage {key} of two types")
            return found[key][1]

        size = file.seek(0, io.SEEK_END)
        return PickleReader(size, _Tensors(size).names(), external).read(archive.read(inside[0]))


class _LegacyStorages:
    """The storages of a file of the format before zip: made when they are named, filled when their numbers come."""

    def __init__(self, size: int) -> None:
        self.left = size  # bytes that further storages may have
        self.found: dict[str, tuple[_StorageType, NDArray[Any]]] = {}

    def external(self, about: Any) -> _Storage:
        """The storage with the persistent id `about`; its numbers are still missing."""
        kind, key, count = _storage_of(about, 6)
        if key not in self.found:
            self.left -= count * kind.dtype.itemsize
            if self.left < 0:
                raise ValueError(f"storages up to {key} with more numbers than the file; expected all their numbers")
            self.found[key] = kind, np.zeros(count, np.float32 if kind.is_bfloat16 else kind.dtype)
        known, values = self.found[key]
        if known is not kind or len(values) != count:
            raise ValueError(f"storage {key} of two types or lengths")
        if about[5] is None:
            return _Storage(values)
        _, start, length = about[5]  # of a storage that is a part of this one
        if not 0 <= start <= start + length <= count:
            raise ValueError(f"a part of storage {key} that reaches outside of it")
        return _Storage(values[start : start + length])

    def fill(self, keys: Any, file: BinaryIO, order: Literal["<", ">"]) -> None:
        """Read the numbers of all storages, whose `keys` are in the order of the file."""
        missing = set(self.found)
        for key in keys:
            if not isinstance(key, str) or key not in missing:
                raise ValueError(f"storage {described(key)} comes where another one was expected")
            kind, values = self.found[key]
            count = int.from_bytes(file.read(8), "little")
            content = file.read(len(values) * kind.dtype.itemsize)
            if count != len(values) or len(content) != count * kind.dtype.itemsize:
                raise ValueError(f"storage {key} of {len(content)} bytes; expected {len(values)} numbers")
            values[:] = kind.values(content, order)
            missing.discard(key)
        if missing:
            raise ValueError(f"storage {min(missing)} is missing")


def _read_legacy(file: BinaryIO) -> Any:
    """The content of a file in the format before zip archives."""
    size = file.seek(0, io.SEEK_END)
    file.seek(0)
    magic, version, machine = (PickleReader(size).read(file) for _ in range(3))
    if (magic, version) != (_LEGACY_MAGIC, _LEGACY_VERSION):
        raise ValueError(f"version {described(version)} of the format; expected {_LEGACY_VERSION}")
    storages = _LegacyStorages(size)
    content = PickleReader(size, _Tensors(size).names(), storages.external).read(file)
    keys = PickleReader(size).read(file)
    storages.fill(keys, file, "<" if machine["little_endian"] else ">")
    return content
