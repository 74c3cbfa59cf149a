from __future__ import annotations

import pytest

from pipelines.machine.nvdec import DecoderCaps, refusal_of


def caps(codec: str, bit_depth: int = 8, least: int = 48, most: int = 4096, blocks: int = 65536) -> DecoderCaps:
    return DecoderCaps(codec, "4:2:0", bit_depth, 1, least, least, most, most, blocks)


@pytest.mark.parametrize(
    ("codec", "bit_depth", "chroma", "width", "height", "reason"),
    [
        ("mpeg4", 8, "4:2:0", 320, 240, ""),
        ("mpeg4", 8, "4:2:0", 1920, 1080, ""),
        ("mpeg4", 8, "4:2:0", 2032, 2032, "mpeg4 of 2032x2032, 16129 macroblocks: NVDEC takes up to 8192"),
        ("mpeg4", 8, "4:2:0", 2048, 320, "mpeg4 of 2048x320: NVDEC takes up to 2032x2032"),
        ("mpeg4", 8, "4:2:0", 320, 2048, "mpeg4 of 320x2048: NVDEC takes up to 2032x2032"),
        ("wmv3", 8, "4:2:0", 320, 240, ""),
        ("hevc", 10, "4:2:0", 1920, 1080, ""),
        ("hevc", 12, "4:2:0", 1920, 1080, "hevc of 4:2:0 12 bit: NVDEC takes 4:2:0 8 bit, 4:2:0 10 bit"),
        ("hevc", 8, "4:4:4", 1920, 1080, "hevc of 4:4:4 8 bit: NVDEC takes 4:2:0 8 bit, 4:2:0 10 bit"),
        ("hevc", 8, "4:2:0", 144, 128, "hevc of 144x128: NVDEC takes 144x144 or more"),
        ("av1", 8, "4:2:0", 320, 240, "no av1 on this GPU's NVDEC"),
        ("msmpeg4v3", 8, "4:2:0", 320, 240, "no msmpeg4v3 on this GPU's NVDEC"),
    ],
)
def test_refusal_of(codec: str, bit_depth: int, chroma: str, width: int, height: int, reason: str) -> None:
    card = [caps("mpeg4", most=2032, blocks=8192), caps("vc1"), caps("hevc", 8, 144), caps("hevc", 10, 144)]
    assert refusal_of(card, codec, bit_depth, chroma, width, height) == reason
