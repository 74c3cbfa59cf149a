"""Writes files as torch.save does, without PyTorch: as zip archives and in the format before.

The real pickles of PyTorch name its functions; here the names are written without importing anything. Tests compare
these files with PyTorch's own where it is installed.
"""

from __future__ import annotations

import collections
import io
import pickle
import struct
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

_KINDS = {
    "f8": "DoubleStorage", "f4": "FloatStorage", "f2": "HalfStorage", "i8": "LongStorage", "u2": "BFloat16Storage",
    "b1": "BoolStorage",
}  # fmt: skip


@dataclass(frozen=True)
class Name:
    """A global name, which is written as it is."""

    module: str
    name: str

    def __call__(self) -> None:
        raise AssertionError("only written, never called")


@dataclass(eq=False)
class Storage:
    """Numbers that tensors may share; those of bfloat16 are given as their bits, uint16.

    `part`, only in the format before zip: (first, length) of the numbers that this storage is made of.
    """

    values: NDArray[Any]
    part: tuple[int, int] | None = None


@dataclass(eq=False)
class Tensor:
    """A tensor on a storage; offset and strides count numbers."""

    storage: Storage
    sides: tuple[int, ...]
    strides: tuple[int, ...]
    offset: int = 0
    parameter: bool = False


class _Pickler(pickle._Pickler):  # type: ignore[misc, name-defined] # the one in Python, which can be extended
    def __init__(self, file: Any, legacy: bool) -> None:
        super().__init__(file, 2)
        self.legacy = legacy
        self.storages: dict[int, tuple[str, Storage]] = {}

    def save(self, obj: Any, save_persistent_id: bool = True) -> None:
        if isinstance(obj, Name):
            self.write(pickle.GLOBAL + f"{obj.module}\n{obj.name}\n".encode())
        else:
            super().save(obj, save_persistent_id)

    def persistent_id(self, obj: Any) -> Any:
        if not isinstance(obj, Storage):
            return None
        key, _ = self.storages.setdefault(id(obj.values), (str(len(self.storages)), obj))
        kind = _KINDS[obj.values.dtype.str[1:]]
        view = () if not self.legacy else (None if obj.part is None else (f"{key}'", *obj.part),)
        return ("storage", Name("torch", kind), key, "cpu", obj.values.size, *view)

    def reducer_override(self, obj: Any) -> Any:
        if isinstance(obj, np.ndarray):
            flat = np.ascontiguousarray(obj).reshape(-1)
            steps = [stride // obj.itemsize for stride in np.ascontiguousarray(obj).strides]
            obj = Tensor(Storage(flat), obj.shape, tuple(steps))
        if not isinstance(obj, Tensor):
            return NotImplemented
        hooks: dict[str, Any] = collections.OrderedDict()
        rebuilt = (
            Name("torch._utils", "_rebuild_tensor_v2"),
            (obj.storage, obj.offset, obj.sides, obj.strides, False, hooks),
        )
        if obj.parameter:
            plain = Tensor(obj.storage, obj.sides, obj.strides, obj.offset)
            return Name("torch._utils", "_rebuild_parameter"), (plain, True, hooks)
        return rebuilt


def write_torch(path: Path, content: Any, *, legacy: bool = False, order: str = "little") -> Path:
    """`path`, written with `content`: arrays and Tensors in plain containers, and Names."""
    described = io.BytesIO()
    pickler = _Pickler(described, legacy)
    pickler.dump(content)
    sign = "<" if order == "little" else ">"
    storages = {
        key: storage.values.astype(storage.values.dtype.newbyteorder(sign)).tobytes()
        for key, storage in pickler.storages.values()
    }
    if not legacy:
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("archive/data.pkl", described.getvalue())
            archive.writestr("archive/byteorder", order)
            for key, raw in storages.items():
                archive.writestr(f"archive/data/{key}", raw)
            archive.writestr("archive/version", "3\n")
        return path
    machine = {"protocol_version": 1001, "little_endian": order == "little", "type_sizes": {"short": 2, "int": 4}}
    head = [pickle.dumps(part, 2) for part in (0x1950A86A20F9469CFC6C, 1001, machine)]
    counts = {key: storage.values.size for key, storage in pickler.storages.values()}
    tail = [struct.pack("<q", counts[key]) + raw for key, raw in storages.items()]
    path.write_bytes(b"".join([*head, described.getvalue(), pickle.dumps(list(storages), 2), *tail]))
    return path
