"""Captions on frames: the class and its probability in the lower left corner, readable at any size."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from r3d_fast.pictures.letters import drawable, fitting, load_font

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
        known = drawable(label, self._font)
        if known and not known.strip("? "):
            return f"class {self._classes.index(label)}" if label in self._classes else known
        return known or "?"

    def _fitting(self, text: str, figure: str, room: int) -> str:
        """The text, shortened so that it and `figure` fit into `room` px."""
        room -= round(self._font.getlength(figure)) + (round(self._size * 0.7) if figure else 0)
        return fitting(text, self._font, room)
