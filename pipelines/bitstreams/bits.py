"""Bits: reads bit fields of a header."""

from __future__ import annotations


class Bits:
    """Reads bit fields of `data`, most significant bit first. Raises EOFError past the end."""

    def __init__(self, data: bytes) -> None:
        self._value = int.from_bytes(data, "big")
        self._left = len(data) * 8

    def take(self, count: int) -> int:
        """The next `count` bits as an unsigned integer."""
        if count > self._left:
            raise EOFError("bit field runs past the end of the header")
        self._left -= count
        return (self._value >> self._left) & ((1 << count) - 1)

    def exp_golomb(self) -> int:
        """The next unsigned Exp-Golomb code, ue(v) of H.264 9.1."""
        zeros = 0
        while not self.take(1):
            zeros += 1
        return (1 << zeros) - 1 + self.take(zeros)
