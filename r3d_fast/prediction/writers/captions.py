"""Captions on frames: the class and its probability in the lower left corner, readable at any size. Needs Pillow."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipelines.errors import EnvironmentProblem, UsageError

_ELLIPSIS = "…"
_NO_GLYPH = "\uffff"  # no font has this character: drawn, it shows the font's mark for missing characters
_LEAST_SHOWN = 5  # characters of the label


class Captions:
    """Draws captions on frames of one size. The latest captions are kept, as most frames repeat one."""

    def __init__(self, height: int, width: int, classes: Sequence[str], font_file: Path | None = None) -> None:
        """Prepare for frames of `height` x `width` px, with the font of `font_file`. Raises what load_font raises."""
        self._height, self._width, self._classes = height, width, classes
        self._size = max(11, round(min(height, 0.75 * width) * 0.042) + 3)  # px: 13 of 240, 48 of 1080
        self._font = load_font(self._size, font_file)
        self._drawn = lru_cache(maxsize=16)(self._draw)

    def put(self, pixels: NDArray[np.uint8], label: str, probability: float | None) -> None:
        """Draw the label on `pixels` uint8 [H, W, 3], in place; with a probability also its percentage and a bar."""
        box = self._drawn(label, None if probability is None else round(100 * probability))
        height, width = box.shape[:2]
        margin = self._size // 2
        y, x = max(0, self._height - height - margin), min(margin, max(0, self._width - width))
        under = pixels[y : y + height, x : x + width]
        over = box[: under.shape[0], : under.shape[1]]
        alpha = over[..., 3:].astype(np.uint16)
        under[:] = (over[..., :3] * alpha + under * (255 - alpha) + 127) // 255

    def _draw(self, label: str, percent: int | None) -> NDArray[np.uint8]:
        """The caption, uint8 [h, w, 4], RGBA."""
        from PIL import Image, ImageDraw

        size = self._size
        pad, bar = round(size * 0.55), max(2, size // 8)
        figure = "" if percent is None else f"{percent} %"
        whole = self._shown(label)
        font, room = self._font, self._width - 2 * (size // 2) - 2 * pad
        text = self._fitting(whole, figure, room)
        if len(text) < min(len(whole), _LEAST_SHOWN):  # too narrow for both: the label is more important
            figure, percent = "", None
            text = self._fitting(whole, figure, room)
        gap = round(size * 0.7) if figure else 0
        inner = round(font.getlength(text)) + gap + round(font.getlength(figure))
        ascent, descent = font.getmetrics()
        height = ascent + descent + 2 * (pad // 2) + (bar + pad // 2 if figure else 0)
        image = Image.new("RGBA", (inner + 2 * pad, height), (0, 0, 0, 0))
        draw = ImageDraw.Draw(image)
        draw.rounded_rectangle((0, 0, image.width - 1, height - 1), radius=pad // 2 + 1, fill=(16, 18, 24, 205))
        baseline = pad // 2 + ascent
        draw.text((pad, baseline), text, font=font, fill=(255, 255, 255, 255), anchor="ls")
        if percent is not None:
            right = image.width - pad
            draw.text((right, baseline), figure, font=font, fill=(255, 214, 92, 255), anchor="rs")
            top = height - pad // 2 - bar
            draw.rectangle((pad, top, right - 1, top + bar - 1), fill=(255, 255, 255, 60))
            filled = round((right - pad) * percent / 100)
            if filled:
                draw.rectangle((pad, top, pad + filled - 1, top + bar - 1), fill=(255, 214, 92, 255))
        return np.asarray(image)

    def _shown(self, label: str) -> str:
        """The label on one line. A character that the font lacks becomes its plain letter or a question mark.

        Where only question marks would be left, it is the number of the class.
        """
        line = " ".join("".join(c if c.isprintable() else " " for c in label).split())
        known = "".join(c if c == " " or _has(self._font, c) else _bare(self._font, c) for c in line)
        if line and not known.strip("? "):
            return f"class {self._classes.index(label)}" if label in self._classes else known
        return known or "?"

    def _fitting(self, text: str, figure: str, room: int) -> str:
        """The text, shortened so that it and `figure` fit into `room` px."""
        font = self._font
        room -= round(font.getlength(figure)) + (round(self._size * 0.7) if figure else 0)
        dots = _ELLIPSIS if _has(font, _ELLIPSIS) else "..."
        shown = text
        while len(shown) > 1 and font.getlength(shown) > room:
            shown = shown.removesuffix(dots)[:-1].rstrip() + dots
            if shown == dots:
                break
        return shown


def _bare(font: Any, character: str) -> str:
    """The replacement for a character that `font` lacks: its letter without the accent, or a question mark."""
    letters = [c for c in unicodedata.normalize("NFKD", character) if not unicodedata.combining(c)]
    return "".join(c if _has(font, c) else "?" for c in letters)


def load_font(size: int, file: Path | None = None) -> Any:
    """The font in `file` (None: Pillow's own), at `size` px.

    Raises UsageError where `file` can't be used, EnvironmentProblem where Pillow is missing or can't draw.
    """
    fonts = _pillow()
    if file is None:
        return fonts.load_default(size)
    if not file.is_file():
        what = "it is a folder" if file.is_dir() else "no such file"
        raise UsageError(f"--font {file}: {what}; expected a TrueType or OpenType font")
    try:
        # Opened here, because Pillow, given a path that it can't read, looks for another font of that name.
        with file.open("rb") as opened:
            return fonts.truetype(opened, size)
    except OSError as error:
        reason = error.strerror or error
        raise UsageError(f"--font {file}: can't be used ({reason}); expected a TrueType or OpenType font") from error


@lru_cache(maxsize=4096)
def _has(font: Any, character: str) -> bool:
    """Whether `font` has `character`: whether it looks different from the font's mark for missing characters."""
    mask, lacking = font.getmask(character), font.getmask(_NO_GLYPH)
    return bool(mask.size != lacking.size or bytes(mask) != bytes(lacking))


def _pillow() -> Any:
    try:
        from PIL import ImageFont, features
    except ImportError as error:
        raise EnvironmentProblem(
            f"--annotate needs Pillow ({error}); install it with: pip install 'r3d-fast[annotate]'"
        ) from error
    if not features.check("freetype2"):
        raise EnvironmentProblem("--annotate: this Pillow is built without FreeType; install the wheel from PyPI")
    return ImageFont
