"""Limits for reading a pickle of a stranger: steps and memory stay in proportion to the size of its file.

A pickle may use a value many times over, so a few hundred bytes can describe nested tuples of 2 to the power of 60
parts. So no value of the file is compared, hashed, printed or walked through before its type and its length are known,
and what is copied, texts and the items of containers, is counted.
"""

from __future__ import annotations

import math
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from r3d_fast.config.yaml_files import shown

MOST_ARGUMENTS = 16  # of a call; calls of PyTorch have up to 7, states of NumPy up to 9
MOST_SIDES = 64  # of an array, the limit of NumPy 2


class Forbidden(Exception):
    """The file asks for something that is not data."""


class Copied:
    """Counts what is made out of values that the file may use many times, in a file of `size` bytes.

    Raises Forbidden where it gets more than that: each byte of a text, and each item of a container, is needed once.
    """

    def __init__(self, size: int) -> None:
        self._left = size

    def count(self, number: int) -> None:
        """Count `number` bytes or items."""
        self._left -= number
        if self._left < 0:
            raise Forbidden("the same values many times; expected the bytes of each array and the items of a list once")

    def encoded(self, text: Any, encoding: Any) -> bytes:
        """The bytes that are stored as a text."""
        if not isinstance(text, str):
            raise Forbidden(f"bytes made of {described(text)}; expected a text")
        if not isinstance(encoding, str) or encoding != "latin1":
            raise Forbidden(f"text in {described(encoding)}; expected latin1, as bytes are stored")
        self.count(len(text))
        return text.encode("latin1")

    def array(self, content: Any, dtype: Any, shape: Any, order: Any) -> NDArray[Any]:
        """An array on `content`. Raises ValueError where that does not have the bytes that the shape takes."""
        if isinstance(content, str):
            content = self.encoded(content, "latin1")
        sides = whole_numbers(shape)
        if math.prod(sides) * dtype.dtype.itemsize != len(content):
            raise ValueError(f"an array of shape {sides[:8]} and {dtype.dtype} has {len(content)} bytes")
        flat: NDArray[Any] = np.frombuffer(content, dtype.dtype)
        return flat.reshape(sides, order="F" if isinstance(order, str) and order == "F" else "C")

    def pairs(self, items: Any = ()) -> dict[Any, Any]:
        """A dict of (key, value) pairs: an OrderedDict or a Counter takes a list of them, or a dict, or nothing."""
        self.count(len(items))
        made: dict[Any, Any] = {}
        for key, value in items.items() if isinstance(items, dict) else items:
            made[checked_key(key)] = value
        return made

    def items(self, items: Any = ()) -> list[Any]:
        """The items of a set."""
        self.count(len(items))
        return list(items)


def whole_numbers(values: Any, *, least: int = 0) -> list[int]:
    """`values`, the shape or the strides of an array, as numbers from `least` on. Raises ValueError for anything else.

    They have 64 bits, and there are no more than an array has.
    """
    if not isinstance(values, (tuple, list)) or len(values) > MOST_SIDES:
        raise ValueError(f"a shape that is {described(values)}; expected at most {MOST_SIDES} numbers")
    if wrong := [value for value in values if type(value) is not int or not least <= value < 2**63]:
        raise ValueError(f"{described(wrong[0])} as a side or a stride of an array; expected a number of 64 bits")
    return list(values)


def described(value: Any) -> str:
    """`value`, anything in a file, for a message: a text or a number as it is, of anything else the type."""
    if isinstance(value, str):
        return shown(value)
    if value is None:
        return "nothing"
    if isinstance(value, int):
        return str(value) if abs(value) < 2**64 else "a number of many digits"
    return f"a {type(value).__name__}"


def checked_key(key: Any) -> str | int:
    """`key`, the key of a dict. Raises Forbidden unless it is a name or a number."""
    if not isinstance(key, (str, int)):  # hashing a deeply nested tuple could take for ever
        raise Forbidden(f"a key of type {type(key).__name__}; expected a name")
    if isinstance(key, int) and not -(2**64) < key < 2**64:  # Python hashes a long number again each time
        raise Forbidden("a key that is a number of many digits; expected a name")
    return key


class Bounded:
    """A file that never sets aside more memory than it has bytes, `size`, whatever length an opcode claims."""

    def __init__(self, file: BinaryIO, size: int) -> None:
        self._file, self._size = file, size
        self.readline, self.tell = file.readline, file.tell

    def read(self, count: int) -> bytes:
        """At most `count` bytes."""
        return self._file.read(min(count, self._size))


def printable(error: Exception) -> str:
    """The text of `error` on one line, without control characters: it may quote bytes of the file."""
    text = str(error)[:300] or type(error).__name__
    return text if text.isprintable() else repr(text)
