from __future__ import annotations

import numpy as np
import pytest

from pipelines.bitstreams.mpeg4_soundness import HEAD_BYTES, VopRules, are_sound, group_seconds_of

RULES = VopRules(resolution=25, increment_bits=5, quant_bits=5)
LAYER = b"\0\0\1\x20layer"
GROUP = b"\0\0\1\xb3" + ((1 << 13 | 2 << 7 | 1 << 6 | 3) << 14).to_bytes(4, "big")  # one hour, 2 min, 3 s


def head(
    kind: str, ticks: int, *, seconds: int = 0, marks: str = "11", coded: int = 1, quant: int = 4, range_: int = 1
) -> bytes:
    """The bytes after the start code of a VOP."""
    text = f"{'IPBS'.index(kind):02b}" + "1" * seconds + "0" + marks[0] + f"{ticks:05b}" + marks[1] + str(coded)
    text += "0" * (kind == "P") + "000" + f"{quant:05b}" + f"{range_:03b}" * {"I": 0, "P": 1, "B": 2, "S": 1}[kind]
    return int(text.ljust(8 * HEAD_BYTES, "0"), 2).to_bytes(HEAD_BYTES, "big")


def sound(*heads: bytes, silent: int = -1, groups: dict[int, int] | None = None) -> bool:
    rows = np.frombuffer(b"".join(heads), np.uint8).reshape(-1, HEAD_BYTES)
    numbers = np.arange(len(rows))
    return are_sound(rows, rows[:, 0].astype(np.int64) >> 6, numbers == silent, RULES, groups or {})


def test_headers_as_encoders_write_them_are_sound() -> None:
    assert sound(head("I", 0), head("P", 3), head("B", 1), head("B", 2), head("P", 0, seconds=1), head("B", 24))


@pytest.mark.parametrize(
    "other",
    [
        pytest.param(head("P", 3, marks="01"), id="no marker before the time"),
        pytest.param(head("P", 3, marks="10"), id="no marker after the time"),
        pytest.param(head("P", 25), id="more ticks than a second has"),
        pytest.param(head("P", 3, coded=0), id="not coded, though it is large"),
        pytest.param(head("P", 3, quant=0), id="quantiser 0"),
        pytest.param(head("P", 3, range_=0), id="range of vectors 0"),
        pytest.param(head("S", 3), id="a sprite where there are none"),
        pytest.param(head("P", 3, seconds=30), id="half a minute later"),
        pytest.param(bytes(HEAD_BYTES), id="zeros"),
        pytest.param(b"\xff" * HEAD_BYTES, id="ones"),
    ],
)
def test_a_header_that_the_decoder_refuses_is_not_sound(other: bytes) -> None:
    assert sound(head("I", 0), head("P", 3), head("P", 4))
    assert not sound(head("I", 0), other, head("P", 4))


@pytest.mark.parametrize(("ticks", "seconds"), [(0, 0), (3, 0), (4, 0), (1, 1)])
def test_a_b_vop_whose_time_is_not_between_its_references_is_not_sound(ticks: int, seconds: int) -> None:
    assert not sound(head("I", 0), head("P", 3), head("B", ticks, seconds=seconds))


def test_a_vop_that_is_known_to_give_no_frame_is_not_coded() -> None:
    assert sound(head("I", 0), head("P", 3, coded=0), head("P", 4), silent=1)
    assert not sound(head("I", 0), head("P", 3), head("P", 4), silent=1)


def test_a_group_header_sets_the_second() -> None:
    vops = (head("I", 0), head("P", 3), head("B", 1), head("I", 2), head("P", 5), head("B", 4))
    assert sound(*vops, groups={3: 3723})
    assert not sound(*vops[:3], head("I", 2), head("B", 24), groups={3: 3723})


def test_what_precedes_a_vop_is_known_or_a_group_header() -> None:
    assert group_seconds_of(b"", LAYER) == -1
    assert group_seconds_of(LAYER, LAYER) == -1
    assert group_seconds_of(GROUP, LAYER) == group_seconds_of(LAYER + GROUP, LAYER) == 3600 + 120 + 3
    assert group_seconds_of(b"x" + LAYER, LAYER) is None
    assert group_seconds_of(b"\0\0\1\x20other", LAYER) is None
    assert group_seconds_of(LAYER + LAYER, LAYER) is None
    assert group_seconds_of(GROUP[:5], LAYER) is None
