"""Makes FFmpeg's decoder of MPEG-4 as strict at a key frame in the middle as it is after a decode from the start.

Some encoders end pictures without the stuffing that the standard asks for. The decoder keeps a score of that
(padding_bug_score, libavcodec/h263dec.c). Each slice that ends well lowers it by one. As long as it is above -2, bits
that are left behind a picture are no error, so a decoder that has just begun takes damaged pictures for sound ones.
"""

from __future__ import annotations

_SLICES = 24  # that end well; one damaged picture raises the score by at most 16
_START, _MARKER = "0" * 23 + "110110110", "0" * 16 + "1"  # of a VOP, and of a slice of a P-VOP; ISO/IEC 14496-2 6.2.5


def well_ended_slices(width: int, height: int, increment_bits: int, quant_bits: int) -> bytes:
    """P-VOPs for a layer of `width` x `height` px which repeat the picture before, in many slices that end well.

    `increment_bits` are the bits of a time in ticks, `quant_bits` those of the quantiser. Interlaced layers, and those
    with sprites, are not meant: their VOPs have more fields.
    """
    blocks = ((width + 15) // 16) * ((height + 15) // 16)
    slices = min(_SLICES, blocks)
    number_bits = max(1, (blocks - 1).bit_length())
    quantiser = f"{1:0{quant_bits}b}"
    # The coding type, no second passed, the time, and: it is coded, rounding, threshold, quantiser, range of vectors.
    bits = f"{_START}01" + "01" + "0" * increment_bits + "11" + "0" + "000" + quantiser + "001"
    for number in range(slices):
        if number:
            bits = _stuffed(bits) + f"{_MARKER}{number:0{number_bits}b}{quantiser}0"
        bits += "1" * (blocks - slices + 1 if number == slices - 1 else 1)  # macroblocks that are not coded
    bits = _stuffed(bits)
    return int(bits, 2).to_bytes(len(bits) // 8, "big")


def _stuffed(bits: str) -> str:
    """The bits filled up to whole bytes as the standard asks for: by a zero, then ones."""
    return bits + "0" + "1" * (-(len(bits) + 1) % 8)
