"""Reads pickles without unpickling: opcode by opcode, so that no code in them is ever run.

Weights files of Paddle and of PyTorch are pickles, and unpickling a file from a stranger runs the code that it asks
for. Here `pickletools` decodes the opcodes one by one; those that build containers, numbers and texts are carried out,
and the few names with which a library describes its arrays are read as descriptions. Any other opcode or name is an
error.

Reading takes no more steps and no more memory than the file has bytes, up to a factor: see pickle_limits.
"""

from __future__ import annotations

import pickletools
from collections.abc import Callable, Mapping
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from r3d_fast.weights.foreign.pickle_limits import (
    MOST_ARGUMENTS,
    Bounded,
    Copied,
    Forbidden,
    checked_key,
    described,
)

_MOST_OPCODES = 2_000_000  # a model of a thousand tensors takes about ten thousand
_LONGEST_NAME = 200  # characters of a global name
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
    "PERSID", "EXT1", "EXT2", "EXT4", "INST", "OBJ", "NEWOBJ", "NEWOBJ_EX", "NEXT_BUFFER",
    "READONLY_BUFFER",
}  # fmt: skip


class _Dtype:
    """A NumPy dtype, made from the description in the file."""

    def __init__(self, code: Any, *_: Any) -> None:
        if not isinstance(code, str) or code not in _DTYPES:
            raise Forbidden(f"an array of dtype {described(code)}; expected numbers")
        self.dtype = np.dtype(code)

    def build(self, state: Any) -> None:
        """Take the byte order. Refuses compound dtypes."""
        if not isinstance(state, tuple) or not 2 <= len(state) <= MOST_ARGUMENTS or not isinstance(state[1], str):
            raise ValueError("a dtype without an order of bytes")
        _, order, *parts = state
        if any(part is not None for part in parts[:3]):
            raise Forbidden("an array of a compound dtype; expected numbers")
        self.dtype = self.dtype.newbyteorder(order)


class _Array:
    """A NumPy array; the opcode BUILD gives it its content."""

    value: NDArray[Any] | None = None

    def build(self, state: Any, copied: Copied) -> None:
        """Make the array from its shape, dtype, order and bytes."""
        _, shape, dtype, fortran, content = state
        self.value = copied.array(content, dtype, shape, "F" if fortran else "C")


class KnownName:
    """A global name that a file may use, with the function that is called here in its place."""

    def __init__(self, make: Callable[..., Any], *, bare: bool) -> None:
        self._make, self._bare = make, bare

    def makes(self, function: Callable[..., Any]) -> bool:
        """Whether it is `function` that is called."""
        return self._make == function

    def call(self, arguments: tuple[Any, ...]) -> Any:
        """The result of the function. A `bare` name takes no arguments, as NumPy and Paddle write it without any."""
        if len(arguments) > MOST_ARGUMENTS:
            raise Forbidden(f"a call with {len(arguments)} arguments; expected {MOST_ARGUMENTS} at most")
        if self._bare and arguments:
            raise Forbidden(f"{self._make.__name__.lstrip('_')} with arguments; expected none")
        return self._make(*arguments)


class PickleReader:
    """Carries out the opcodes of one pickle in a file of `size` bytes.

    `names` are the global names that the file may use, beside those of NumPy and of plain containers. `external` makes
    a value of the persistent id of something that lies outside the pickle; without it there may be none.
    """

    def __init__(
        self, size: int, names: Mapping[str, Any] | None = None, external: Callable[[Any], Any] | None = None
    ) -> None:
        self.stack: list[Any] = []
        self.marks: list[int] = []
        self.memo: dict[int, Any] = {}
        self.size, self.copied = size, Copied(size)
        self.names = {**self._known_names(), **(names or {})}
        self.external = external

    def _known_names(self) -> dict[str, KnownName]:
        """The names in the pickles of NumPy 1 and 2 and of plain containers, in protocols 2 to 5."""
        known: dict[str, Callable[..., Any]] = {
            "numpy.dtype": _Dtype,
            "numpy.ndarray": _Array,
            "collections.OrderedDict": self.copied.pairs,
            "collections.Counter": self.copied.pairs,
            "_codecs.encode": self.copied.encoded,
        }
        for module in ("__builtin__", "builtins"):
            known[f"{module}.bytes"] = bytes
            known[f"{module}.tuple"] = lambda items: items
            known[f"{module}.set"] = self.copied.items
        for core in ("core", "_core"):
            known[f"numpy.{core}.multiarray._reconstruct"] = lambda kind, shape, code: _Array()
            known[f"numpy.{core}.multiarray.scalar"] = self._scalar
            known[f"numpy.{core}.numeric._frombuffer"] = self.copied.array
        return {name: KnownName(make, bare=make in (_Array, bytes)) for name, make in known.items()}

    def _scalar(self, dtype: Any, content: Any) -> Any:
        return self.copied.array(content, dtype, (), "C")[()]

    def read(self, pickle: bytes | BinaryIO) -> Any:
        """The value that the opcodes of `pickle` describe; of a file, those from where it stands on."""
        opcodes = pickle if isinstance(pickle, bytes) else Bounded(pickle, self.size)
        for number, (opcode, argument, _) in enumerate(pickletools.genops(opcodes)):  # type: ignore[arg-type]
            if number == _MOST_OPCODES:
                raise Forbidden(f"more than {_MOST_OPCODES} opcodes; expected those of some thousand tensors")
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
                raise Forbidden(name if argument is None else f"{name} {argument}")
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
                if not isinstance(made, KnownName) or not isinstance(arguments, tuple):
                    raise Forbidden("a call of something without a name")
                self.stack.append(made.call(arguments))
            case "BUILD":
                state, target = self._pop(), self.stack[-1]
                if isinstance(target, _Dtype):
                    target.build(state)
                elif isinstance(target, _Array):
                    target.build(state, self.copied)
                elif not isinstance(target, dict):  # the attributes of an OrderedDict hold no tensors: left out
                    raise Forbidden("a state for something that has none")
            case "POP":
                del self.stack[-1]
            case "POP_MARK":
                self._since_mark()
            case "BINPERSID":
                if self.external is None:
                    raise Forbidden("BINPERSID")
                self.stack.append(self.external(self._pop()))
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
                raise Forbidden(name)

    def _global(self, module: Any, name: Any) -> None:
        if not isinstance(module, str) or not isinstance(name, str):
            raise Forbidden(f"a name that is {described(name if isinstance(module, str) else module)}")
        known = self.names.get(f"{module}.{name}") if len(module) + len(name) <= _LONGEST_NAME else None
        if known is None:
            raise Forbidden(f"{module}.{name}")
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
            target[checked_key(key)] = value

    def _extend(self, items: list[Any]) -> None:
        target = self.stack[-1]
        if not isinstance(target, list):
            raise TypeError("items for something that is no list")
        target += items
