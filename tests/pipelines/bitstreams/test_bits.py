from __future__ import annotations

import pytest

from pipelines.bitstreams.bits import Bits


def test_exp_golomb_codes() -> None:
    bits = Bits(bytes([0b10100110, 0b01000011, 0b10001000]))
    assert [bits.exp_golomb() for _ in range(6)] == [0, 1, 2, 3, 6, 7]
    with pytest.raises(EOFError, match="past the end"):
        Bits(b"\0").exp_golomb()
