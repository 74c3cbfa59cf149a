"""The contact sheet: one row a clip, with its frames, its label, its file and what was done to it."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from pipelines.plain_text import plain
from pipelines.specs import AugmentSpec, ClipSpec
from r3d_fast.pictures.letters import drawable, fitting, fitting_end, wide_font, wrapped
from r3d_fast.preview.shown_clips import ShownClip

if TYPE_CHECKING:
    from PIL import Image

MOST_FRAMES = 16  # frames of a clip that are shown; of longer clips these many, evenly spread
_TILE = 112  # px; the side of a frame where that needs no other scale than a whole number
_GAP, _MARGIN = 3, 16  # px
_FONT = 15  # px
_WHITE, _BLACK, _GREY, _RED, _LINE = "#ffffff", "#111111", "#666666", "#e00000", "#dddddd"


def contact_sheet(clips: Sequence[ShownClip], title: str) -> bytes:
    """The PNG of a contact sheet of `clips`, one row each, below `title`, which may have several lines."""
    from PIL import Image, ImageDraw

    tile = tile_side(clips[0].frames.shape[1]) if clips else _TILE
    columns = [_columns(clip) for clip in clips]
    most = max(map(len, columns), default=0)
    thumb = round(tile * 1.6)
    width = 2 * _MARGIN + thumb + 2 * _GAP + max(most * (tile + _GAP), 4 * _TILE)
    fonts = _Fonts()
    head = [
        part
        for line in title.split("\n")
        for part in wrapped(drawable(plain(line), fonts.text), fonts.text, width - 2 * _MARGIN)
    ]
    top = _MARGIN + len(head) * (_FONT + 7) + _GAP
    row_height = 2 * (_FONT + 6) + tile + _FONT + 16
    sheet = Image.new("RGB", (width, top + max(1, len(clips)) * row_height), _WHITE)
    draw = ImageDraw.Draw(sheet)
    for number, line in enumerate(head):
        draw.text((_MARGIN, _MARGIN + number * (_FONT + 7)), line, font=fonts.text, fill=_BLACK)
    for number, (clip, shown) in enumerate(zip(clips, columns, strict=True)):
        y = top + number * row_height
        draw.line((_MARGIN, y, width - _MARGIN - 1, y), fill=_LINE)
        _draw_row(sheet, draw, fonts, clip, shown, y + 6, tile, thumb)
    return _png(sheet)


def legend(clip: ClipSpec, augment: AugmentSpec) -> str:
    """What the pictures in a sheet of such clips show, in words."""
    side = augment.size_px
    shown = "" if tile_side(side) == side else f" (shown at {tile_side(side)} px)"
    part = "" if clip.num_frames <= MOST_FRAMES else f" ({MOST_FRAMES} of them shown)"
    return (
        f"Each clip: {clip.num_frames} frames{part} of {side} px{shown}, with their numbers in the video; "
        "left: the whole first frame, and in red what the model sees of it"
    )


class _Fonts:
    def __init__(self) -> None:
        self.text, self.bold, self.small = wide_font(_FONT), wide_font(_FONT, bold=True), wide_font(_FONT - 4)


def _draw_row(
    sheet: Image.Image, draw: Any, fonts: _Fonts, clip: ShownClip, columns: NDArray[np.int64], y: int, tile: int,
    thumb: int,
) -> None:  # fmt: skip
    """Draw the row of `clip` from `y` px on: two lines of text, the whole first frame, and the frames `columns`."""
    room = sheet.width - 2 * _MARGIN
    label = fitting(drawable(plain(clip.label), fonts.bold), fonts.bold, room / 2)
    draw.text((_MARGIN, y), label, font=fonts.bold, fill=_BLACK)
    x = _MARGIN + round(fonts.bold.getlength(label)) + _FONT
    path = fitting_end(drawable(plain(clip.path), fonts.text), fonts.text, sheet.width - _MARGIN - x)
    draw.text((x, y), path, font=fonts.text, fill=_GREY)
    y += _FONT + 6
    facts = f"can't be read: {clip.problem}" if clip.problem else clip.facts()
    shown = fitting(drawable(plain(facts), fonts.text), fonts.text, room)
    draw.text((_MARGIN, y), shown, font=fonts.text, fill=_RED if clip.problem else _GREY)
    y += _FONT + 8
    _draw_whole(sheet, draw, fonts, clip, (_MARGIN, y), (thumb, tile))
    x = _MARGIN + thumb + 2 * _GAP
    for column in columns:
        sheet.paste(scaled(clip.frames[column], tile), (x, y))
        draw.text((x + 1, y + tile + 2), str(clip.plan.frames[column]), font=fonts.small, fill=_GREY)
        x += tile + _GAP


def _draw_whole(
    sheet: Image.Image, draw: Any, fonts: _Fonts, clip: ShownClip, at: tuple[int, int], box: tuple[int, int]
) -> None:
    """Draw the clip's first frame whole, at `at` (x, y), as large as fits into `box` (width, height), with the crop."""
    from PIL import Image

    height, width = clip.size
    scale = min(box[0] / width, box[1] / height)
    size = max(1, round(width * scale)), max(1, round(height * scale))
    if clip.whole_frame is None:
        draw.rectangle((*at, at[0] + size[0] - 1, at[1] + size[1] - 1), outline=_LINE)
        draw.text((at[0] + 4, at[1] + 4), "can't be read", font=fonts.small, fill=_GREY)
        return
    sheet.paste(Image.fromarray(clip.whole_frame).resize(size, Image.Resampling.BOX), at)
    y, x, tall, wide = (value * scale for value in clip.seen)
    corner = at[0] + round(x), at[1] + round(y)
    end = at[0] + round(x + wide) - 1, at[1] + round(y + tall) - 1
    draw.rectangle((*corner, *end), outline=_WHITE, width=3)  # so that the red shows on red, too
    draw.rectangle((*corner, *end), outline=_RED, width=2)


def tile_side(side: int) -> int:
    """The side in px at which frames of `side` px are shown: the same, or a multiple or a part of it near 112 px."""
    return side * max(1, _TILE // side) if side <= _TILE else side // max(1, round(side / _TILE))


def scaled(frame: NDArray[np.uint8], side: int) -> Image.Image:
    """`frame`, uint8 [S, S, 3], as an image with sides of `side` px; each pixel becomes whole ones where it grows."""
    from PIL import Image

    grows = side >= frame.shape[0]
    return Image.fromarray(frame).resize((side, side), Image.Resampling.NEAREST if grows else Image.Resampling.BOX)


def _columns(clip: ShownClip) -> NDArray[np.int64]:
    """The frames of a clip that are shown, int64 [at most MOST_FRAMES]."""
    count = len(clip.frames)
    return np.arange(count) if count <= MOST_FRAMES else np.linspace(0, count - 1, MOST_FRAMES).round().astype(np.int64)


def _png(sheet: Image.Image) -> bytes:
    file = io.BytesIO()
    sheet.save(file, "PNG", optimize=False)
    return file.getvalue()
