"""The moving sheet: an mp4 in which clips play side by side, each above its label."""

from __future__ import annotations

import math
from collections.abc import Sequence
from fractions import Fraction
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

from pipelines.plain_text import plain
from r3d_fast.pictures.letters import drawable, fitting, wide_font
from r3d_fast.pictures.mp4 import Mp4Writer, even_sides
from r3d_fast.preview.contact_sheet import scaled, tile_side
from r3d_fast.preview.shown_clips import ShownClip

_FPS = Fraction(8)  # slow enough to see every frame of a clip of 16 frames
_PLAYED = 4  # times that the clips are played
_FONT, _GAP = 13, 6  # px


def write_moving_sheet(file: BinaryIO, clips: Sequence[ShownClip]) -> None:
    """Write an mp4 to `file` in which `clips`, all of the same number of frames, play side by side, four times."""
    pictures = [even_sides(picture) for picture in _pictures(clips)]
    height, width, _ = pictures[0].shape
    film = Mp4Writer(file, height, width, _FPS)
    for number in range(_PLAYED * len(pictures)):
        film.write(pictures[number % len(pictures)], float(number / _FPS))
    film.close()


def _pictures(clips: Sequence[ShownClip]) -> list[NDArray[np.uint8]]:
    """The pictures that are played, each uint8 [H, W, 3]: one for each frame of the clips."""
    from PIL import Image, ImageDraw

    side = max(tile_side(clips[0].frames.shape[1]), 2 * _FONT)
    columns = math.ceil(math.sqrt(len(clips)))
    cell = side + _GAP, side + _FONT + 3 * _GAP  # width, height
    font = wide_font(_FONT)
    page = Image.new("RGB", (columns * cell[0] + _GAP, -(-len(clips) // columns) * cell[1] + _GAP), "#ffffff")
    draw = ImageDraw.Draw(page)
    corners = [(_GAP + k % columns * cell[0], _GAP + k // columns * cell[1]) for k in range(len(clips))]
    for clip, (x, y) in zip(clips, corners, strict=True):
        label = fitting(drawable(plain(clip.label), font), font, side)
        draw.text((x, y + side + 2), label, font=font, fill="#111111")
    pictures = []
    for number in range(len(clips[0].frames)):
        for clip, corner in zip(clips, corners, strict=True):
            page.paste(scaled(clip.frames[number], side), corner)
        pictures.append(np.array(page))
    return pictures
