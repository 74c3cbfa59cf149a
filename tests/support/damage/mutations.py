"""Damages the bytes of files, the same way for the same seed."""

from __future__ import annotations

from collections.abc import Callable
from random import Random

Mutation = Callable[[bytearray, Random], bytearray]
_HEAD = 2048  # bytes at the start of a file in which headers mostly lie


def mutated(data: bytes, kind: str, seed: int) -> bytes:
    """`data` damaged in the way of `kind`, a key of MUTATIONS."""
    return bytes(MUTATIONS[kind](bytearray(data), Random(f"{kind} {seed}")))


def _span(data: bytearray, draw: Random) -> tuple[int, int]:
    """A place, and a length of up to a tenth of the file."""
    length = int(2 ** draw.uniform(0, max(1, (len(data) // 10).bit_length())))
    begin = draw.randrange(len(data))
    return begin, min(begin + length, len(data))


def _flip_bits(data: bytearray, draw: Random) -> bytearray:
    for _ in range(int(2 ** draw.uniform(0, 6))):
        data[draw.randrange(len(data))] ^= 1 << draw.randrange(8)
    return data


def _flip_bits_of_headers(data: bytearray, draw: Random) -> bytearray:
    begin = draw.choice((0, max(0, len(data) - _HEAD)))
    for _ in range(int(2 ** draw.uniform(0, 4))):
        data[begin + draw.randrange(min(_HEAD, len(data) - begin))] ^= 1 << draw.randrange(8)
    return data


def _zero(data: bytearray, draw: Random) -> bytearray:
    begin, end = _span(data, draw)
    data[begin:end] = bytes(end - begin)
    return data


def _noise(data: bytearray, draw: Random) -> bytearray:
    begin, end = _span(data, draw)
    data[begin:end] = draw.randbytes(end - begin)
    return data


def _remove(data: bytearray, draw: Random) -> bytearray:
    begin, end = _span(data, draw)
    del data[begin:end]
    return data


def _repeat(data: bytearray, draw: Random) -> bytearray:
    begin, end = _span(data, draw)
    data[end:end] = data[begin:end]
    return data


def _insert(data: bytearray, draw: Random) -> bytearray:
    begin, end = _span(data, draw)
    data[begin:begin] = draw.randbytes(end - begin)
    return data


def _truncate(data: bytearray, draw: Random) -> bytearray:
    return data[: draw.randrange(1, len(data))]


def _append(data: bytearray, draw: Random) -> bytearray:
    begin, end = _span(data, draw)
    return data + draw.choice((draw.randbytes(end - begin), bytes(end - begin), data[begin:end], data))


def _swap(data: bytearray, draw: Random) -> bytearray:
    first, second = sorted((_span(data, draw), _span(data, draw)))
    if second[0] < first[1]:
        return _zero(data, draw)
    between = data[first[1] : second[0]]
    data[first[0] : second[1]] = data[second[0] : second[1]] + between + data[first[0] : first[1]]
    return data


def _resize_field(data: bytearray, draw: Random) -> bytearray:
    """Change a number of four bytes beside a name of four letters, as boxes and chunks have it."""
    names = [at for at in range(4, len(data) - 8) if data[at : at + 4].isalnum() and data[at : at + 4].isascii()]
    if not names:
        return _flip_bits_of_headers(data, draw)
    at = draw.choice(names)
    order, place = draw.choice((("big", at - 4), ("little", at + 4)))
    old = int.from_bytes(data[place : place + 4], order)  # type: ignore[arg-type]
    new = draw.choice((0, 1, old + 1, max(0, old - 1), old * 2, old // 2, 0xFFFFFFFF, 0x7FFFFFFF, draw.getrandbits(16)))
    data[place : place + 4] = (new & 0xFFFFFFFF).to_bytes(4, order)  # type: ignore[arg-type]
    return data


def _several(data: bytearray, draw: Random) -> bytearray:
    for name in draw.sample(sorted(set(MUTATIONS) - {"several"}), 3):
        data = MUTATIONS[name](data, draw) if data else data
    return data


MUTATIONS: dict[str, Mutation] = {
    "bits flipped": _flip_bits,
    "bits of headers flipped": _flip_bits_of_headers,
    "range zeroed": _zero,
    "range overwritten": _noise,
    "range removed": _remove,
    "range repeated": _repeat,
    "range inserted": _insert,
    "truncated": _truncate,
    "appended": _append,
    "ranges swapped": _swap,
    "size field changed": _resize_field,
    "several": _several,
}
