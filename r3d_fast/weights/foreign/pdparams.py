"""Files that `paddle.save` wrote, read without running anything of theirs: NumPy arrays in plain containers.

A .pdparams is a pickle, and unpickling a stranger's runs what it says. So nothing is unpickled here: the opcodes are
read one by one (`pickletools` decodes them), those that build containers, numbers and texts are followed, and the few
names by which NumPy describes its arrays are taken for descriptions. Everything else ends the reading.
"""

from __future__ import annotations

import math
import pickletools
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from r3d_fast.config.yaml_files import shown
from r3d_fast.errors import CheckpointError

_MOST_OPCODES = 2_000_000  # a model of a thousand tensors takes some ten thousand
_DTYPES = {"b1", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "f2", "f4", "f8"}
_PUSHED = {
    "INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4", "FLOAT", "BINFLOAT", "STRING", "BINSTRING",
    "SHORT_BINSTRING", "UNICODE", "BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8", "BINBYTES", "SHORT_BINBYTES",
    "BINBYTES8", "BYTEARRAY8",
}  # fmt: skip
_CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False}
_IGNORED = {"PROTO", "FRAME"}
_STORE = {"PUT", "BINPUT", "LONG_BINPUT", "MEMOIZE"}
_FETCH = {"GET", "BINGET", "LONG_BINGET"}
_CODES = {
    "PERSID", "BINPERSID", "EXT1", "EXT2", "EXT4", "INST", "OBJ", "NEWOBJ", "NEWOBJ_EX", "NEXT_BUFFER",
    "READONLY_BUFFER",
}  # fmt: skip

# Paddle's keys beside tensors: the names inside its graph, and how tensors of 1 GiB were cut up.
_NAMES, _PARTS = "StructuredToParameterName@@", "UnpackBigParamInfor@@"


class _Forbidden(Exception):
    """What the file asks for is not data."""


class _Dtype:
    """A NumPy dtype as the file describes it."""

    def __init__(self, code: Any, *_: Any) -> None:
        if not isinstance(code, str) or code not in _DTYPES:
            raise _Forbidden(f"an array of dtype {shown(code)}; expected numbers")
        self.dtype = np.dtype(code)

    def build(self, state: Any) -> None:
        """Take the byte order, and refuse a dtype of parts."""
        _, order, *parts = state
        if any(part is not None for part in parts[:3]):
            raise _Forbidden("an array of a compound dtype; expected numbers")
        self.dtype = self.dtype.newbyteorder(order)


class _Array:
    """A NumPy array, which BUILD gives its content."""

    value: NDArray[Any] | None = None

    def build(self, state: Any) -> None:
        """Take shape, dtype, order and bytes."""
        _, shape, dtype, fortran, content = state
        self.value = _array(content, dtype, shape, "F" if fortran else "C")


class _Name:
    """A global that may be named: called, it makes what it stands for here."""

    def __init__(self, make: Callable[..., Any], *, bare: bool) -> None:
        self._make, self._bare = make, bare

    def call(self, arguments: tuple[Any, ...]) -> Any:
        """What it makes of `arguments`; of none where that is the form that NumPy and Paddle write."""
        if self._bare and arguments:
            raise _Forbidden(f"{self._make.__name__.lstrip('_')} with arguments; expected none")
        return self._make(*arguments)


def _array(content: Any, dtype: Any, shape: Any, order: str) -> NDArray[Any]:
    if isinstance(content, str):
        content = content.encode("latin1")
    sides = [int(side) for side in shape]
    if min(sides, default=0) < 0 or math.prod(sides) * dtype.dtype.itemsize != len(content):
        raise ValueError(f"an array of shape {sides[:8]} and {dtype.dtype} has {len(content)} bytes")
    flat: NDArray[Any] = np.frombuffer(content, dtype.dtype)
    return flat.reshape(sides, order="F" if order == "F" else "C")


class _Reader:
    """Follows the opcodes of one file."""

    def __init__(self) -> None:
        self.stack: list[Any] = []
        self.marks: list[int] = []
        self.memo: dict[int, Any] = {}
        self.names = self._known_names()
        self.encodable = 0  # bytes

    def _known_names(self) -> dict[str, _Name]:
        """What a file may name, as protocols 2 to 5 of NumPy 1 and 2 do."""
        known: dict[str, Callable[..., Any]] = {
            "numpy.dtype": _Dtype,
            "numpy.ndarray": _Array,
            "collections.OrderedDict": dict,
            "_codecs.encode": self._encoded,
        }
        for module in ("__builtin__", "builtins"):
            known[f"{module}.bytes"] = bytes
            known[f"{module}.tuple"] = lambda items: items
        for core in ("core", "_core"):
            known[f"numpy.{core}.multiarray._reconstruct"] = lambda kind, shape, code: _Array()
            known[f"numpy.{core}.multiarray.scalar"] = lambda dtype, content: _array(content, dtype, (), "C")[()]
            known[f"numpy.{core}.numeric._frombuffer"] = _array
        return {name: _Name(make, bare=make in (_Array, dict, bytes)) for name, make in known.items()}

    def _encoded(self, text: str, encoding: str) -> bytes:
        if encoding != "latin1":
            raise _Forbidden(f"text in {shown(encoding)}; expected latin1, by which bytes are stored")
        self.encodable -= len(text)
        if self.encodable < 0:
            raise _Forbidden("the same text over and over; expected each array's bytes once")
        return text.encode("latin1")

    def read(self, raw: bytes) -> Any:
        """The value that the opcodes of `raw` describe."""
        self.encodable = len(raw)
        for number, (opcode, argument, _) in enumerate(pickletools.genops(raw)):
            if number == _MOST_OPCODES:
                raise _Forbidden(f"more than {_MOST_OPCODES} opcodes; expected those of some thousand tensors")
            name = opcode.name
            if name == "STOP":
                return self._pop()
            if name in _PUSHED:
                self.stack.append(argument)
            elif name in _CONSTANTS:
                self.stack.append(_CONSTANTS[name])
            elif name in _STORE:
                self.memo[len(self.memo) if name == "MEMOIZE" else int(argument or 0)] = self.stack[-1]
            elif name in _FETCH:
                self.stack.append(self.memo[int(argument or 0)])
            elif name in _CODES:
                raise _Forbidden(name if argument is None else f"{name} {argument}")
            elif name not in _IGNORED:
                self._follow(name, argument)
        raise ValueError("no STOP")

    def _follow(self, name: str, argument: Any) -> None:
        """An opcode that works on the stack."""
        match name:
            case "GLOBAL":
                self._global(*argument.split(" ", 1))
            case "STACK_GLOBAL":
                what, module = self._pop(), self._pop()
                self._global(module, what)
            case "REDUCE":
                arguments, made = self._pop(), self._pop()
                if not isinstance(made, _Name) or not isinstance(arguments, tuple):
                    raise _Forbidden("a call of something without a name")
                self.stack.append(made.call(arguments))
            case "BUILD":
                state, target = self._pop(), self.stack[-1]
                if isinstance(target, (_Dtype, _Array)):
                    target.build(state)
                elif not isinstance(target, dict):  # an OrderedDict's own attributes say nothing of tensors
                    raise _Forbidden("a state for something that has none")
            case "POP":
                del self.stack[-1]
            case "POP_MARK":
                self._since_mark()
            case "DUP":
                self.stack.append(self.stack[-1])
            case "MARK":
                self.marks.append(len(self.stack))
            case _:
                self._contain(name)

    def _contain(self, name: str) -> None:
        """An opcode that makes or fills a container."""
        match name:
            case "EMPTY_DICT" | "EMPTY_LIST" | "EMPTY_TUPLE" | "EMPTY_SET":
                self.stack.append({"EMPTY_DICT": {}, "EMPTY_TUPLE": ()}.get(name, []))
            case "TUPLE1" | "TUPLE2" | "TUPLE3":
                items = [self._pop() for _ in range(int(name[-1]))]
                self.stack.append(tuple(reversed(items)))
            case "TUPLE":
                self.stack.append(tuple(self._since_mark()))
            case "LIST" | "FROZENSET":
                self.stack.append(self._since_mark())
            case "DICT":
                items = self._since_mark()
                self.stack.append({})
                self._set(items)
            case "SETITEM":
                value, key = self._pop(), self._pop()
                self._set([key, value])
            case "SETITEMS":
                self._set(self._since_mark())
            case "APPEND":
                self._extend([self._pop()])
            case "APPENDS" | "ADDITEMS":
                self._extend(self._since_mark())
            case _:
                raise _Forbidden(name)

    def _global(self, module: Any, name: Any) -> None:
        known = self.names.get(f"{module}.{name}") if isinstance(module, str) and isinstance(name, str) else None
        if known is None:
            raise _Forbidden(f"{module}.{name}")
        self.stack.append(known)

    def _pop(self) -> Any:
        """The top of the stack, an array as its values."""
        value = self.stack.pop()
        if isinstance(value, _Array):
            value = value.value
            if value is None:
                raise ValueError("an array without content")
        return value

    def _since_mark(self) -> list[Any]:
        start = self.marks.pop()
        if start > len(self.stack):
            raise IndexError("a mark above the stack")
        return [self._pop() for _ in range(len(self.stack) - start)][::-1]

    def _set(self, items: list[Any]) -> None:
        target = self.stack[-1]
        if not isinstance(target, dict) or len(items) % 2:
            raise TypeError("keys for something that is no dict")
        for key, value in zip(items[::2], items[1::2], strict=True):
            if not isinstance(key, (str, int)):  # others could be made to hash without end
                raise _Forbidden(f"a key of type {type(key).__name__}; expected a name")
            target[key] = value

    def _extend(self, items: list[Any]) -> None:
        target = self.stack[-1]
        if not isinstance(target, list):
            raise TypeError("items for something that is no list")
        target += items


def read_pdparams(path: Path) -> Any:
    """What `path` holds: arrays, numbers and texts in dicts, lists and tuples (sets are lists here).

    A tensor is an array, or (its name inside Paddle, array). Tensors that Paddle had cut up are whole again. Nothing of
    the file is run. Raises CheckpointError where it holds anything else, is cut short or is no pickle.
    """
    try:
        if not stat.S_ISREG(path.stat().st_mode):
            raise CheckpointError(f"{path}: not a file; expected a .pdparams that paddle.save wrote")
        raw = path.read_bytes()
    except OSError as error:
        raise CheckpointError(f"{path}: can't be read ({error.strerror})") from error
    try:
        return _joined(_Reader().read(raw))
    except _Forbidden as error:
        raise CheckpointError(
            f"{path}: refused, nothing of it was run: it holds {printable(error)}; expected NumPy arrays in plain "
            "containers, as paddle.save writes a state dict"
        ) from error
    except Exception as error:  # whatever damaged bytes lead to
        raise CheckpointError(
            f"{path}: not a whole .pdparams ({printable(error)}); it may be cut short or another kind of file: fetch "
            "it again"
        ) from error


def printable(error: Exception) -> str:
    """What `error` says, on one line that does nothing to a terminal: it may quote the file."""
    text = str(error)[:300] or type(error).__name__
    return text if text.isprintable() else repr(text)


def _joined(content: Any) -> Any:
    """`content` without Paddle's own keys, tensors in parts put together."""
    if not isinstance(content, dict):
        return content
    for key, about in content.get(_PARTS, {}).items():
        parts = [content.pop(str(part)) for part in about["slices"]]
        content[key] = np.concatenate(parts).reshape([int(side) for side in about["OriginShape"]])
    return {key: value for key, value in content.items() if key not in (_NAMES, _PARTS)}
