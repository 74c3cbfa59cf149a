"""Reads files that `paddle.save` wrote, as NumPy arrays in plain containers, without running any code in them.

A .pdparams is a pickle, and unpickling a file from a stranger runs the code that it asks for. So nothing is unpickled
here. `pickletools` decodes the opcodes one by one; those that build containers, numbers and texts are carried out, and
the few names with which NumPy describes its arrays are read as descriptions. Any other opcode or name is an error.
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

_MOST_OPCODES = 2_000_000  # a model of a thousand tensors takes about ten thousand
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

# Keys that Paddle adds to those of the tensors: names inside its graph, and how tensors above 1 GiB were split.
_NAMES, _PARTS = "StructuredToParameterName@@", "UnpackBigParamInfor@@"


class _Forbidden(Exception):
    """The file asks for something that is not data."""


class _Dtype:
    """A NumPy dtype, made from the description in the file."""

    def __init__(self, code: Any, *_: Any) -> None:
        if not isinstance(code, str) or code not in _DTYPES:
            raise _Forbidden(f"an array of dtype {shown(code)}; expected numbers")
        self.dtype = np.dtype(code)

    def build(self, state: Any) -> None:
        """Take the byte order. Refuses compound dtypes."""
        _, order, *parts = state
        if any(part is not None for part in parts[:3]):
            raise _Forbidden("an array of a compound dtype; expected numbers")
        self.dtype = self.dtype.newbyteorder(order)


class _Array:
    """A NumPy array; the opcode BUILD gives it its content."""

    value: NDArray[Any] | None = None

    def build(self, state: Any) -> None:
        """Make the array from its shape, dtype, order and bytes."""
        _, shape, dtype, fortran, content = state
        self.value = _array(content, dtype, shape, "F" if fortran else "C")


class _Name:
    """A global name that a file may use, with the function that is called here in its place."""

    def __init__(self, make: Callable[..., Any], *, bare: bool) -> None:
        self._make, self._bare = make, bare

    def call(self, arguments: tuple[Any, ...]) -> Any:
        """The result of the function. A `bare` name takes no arguments, as NumPy and Paddle write it without any."""
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
    """Carries out the opcodes of one file."""

    def __init__(self) -> None:
        self.stack: list[Any] = []
        self.marks: list[int] = []
        self.memo: dict[int, Any] = {}
        self.names = self._known_names()
        self.encodable = 0  # bytes that may still be made from texts: no more than the file has

    def _known_names(self) -> dict[str, _Name]:
        """The names that a file may use: those in the pickles of NumPy 1 and 2, in protocols 2 to 5."""
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
            raise _Forbidden(f"text in {shown(encoding)}; expected latin1, as bytes are stored")
        self.encodable -= len(text)
        if self.encodable < 0:
            raise _Forbidden("the same text many times; expected the bytes of each array once")
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
                self.stack.append(self._fetched(int(argument or 0)))
            elif name in _CODES:
                raise _Forbidden(name if argument is None else f"{name} {argument}")
            elif name not in _IGNORED:
                self._follow(name, argument)
        raise ValueError("no STOP")

    def _fetched(self, number: int) -> Any:
        """The value that the file stored under `number`."""
        if number not in self.memo:
            raise ValueError(f"value {number} is used before it is stored")
        return self.memo[number]

    def _follow(self, name: str, argument: Any) -> None:
        """Carry out an opcode that works on the stack."""
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
                elif not isinstance(target, dict):  # the attributes of an OrderedDict hold no tensors: left out
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
        """Carry out an opcode that makes or fills a container."""
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
        """The value taken off the top of the stack; of an _Array its NumPy array."""
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
            if not isinstance(key, (str, int)):  # hashing a deeply nested tuple could take for ever
                raise _Forbidden(f"a key of type {type(key).__name__}; expected a name")
            target[key] = value

    def _extend(self, items: list[Any]) -> None:
        target = self.stack[-1]
        if not isinstance(target, list):
            raise TypeError("items for something that is no list")
        target += items


def read_pdparams(path: Path) -> Any:
    """The content of `path`: arrays, numbers and texts in dicts, lists and tuples (sets become lists).

    A tensor is an array, or a tuple (its name inside Paddle, array). Tensors that Paddle had split are joined again. No
    code of the file is run. Raises CheckpointError where it holds anything else, is cut short or is not a pickle.
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
    except Exception as error:  # damaged bytes may lead to any error
        raise CheckpointError(
            f"{path}: not a whole .pdparams ({printable(error)}); it may be cut short or another kind of file: "
            "download it again"
        ) from error


def printable(error: Exception) -> str:
    """The text of `error` on one line, without control characters: it may quote bytes of the file."""
    text = str(error)[:300] or type(error).__name__
    return text if text.isprintable() else repr(text)


def _joined(content: Any) -> Any:
    """`content` without Paddle's extra keys, and with tensors that were split joined again."""
    if not isinstance(content, dict):
        return content
    for key, about in content.get(_PARTS, {}).items():
        parts = [content.pop(str(part)) for part in about["slices"]]
        content[key] = np.concatenate(parts).reshape([int(side) for side in about["OriginShape"]])
    return {key: value for key, value in content.items() if key not in (_NAMES, _PARTS)}
