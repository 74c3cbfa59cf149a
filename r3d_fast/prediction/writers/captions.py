"""Captions for frames: what a model says, in the lower left corner, readable at any size. Needs Pillow."""

from __future__ import annotations

import shutil
import subprocess
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from functools import cache, lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipelines.errors import EnvironmentProblem

_ELLIPSIS = "…"
_NO_GLYPH = "\uffff"  # no font has it: what it shows is what a font shows for what it lacks
_FONT_FOLDERS = ("/usr/share/fonts", "/usr/local/share/fonts", "~/.local/share/fonts", "~/.fonts")
_LEAST_SHOWN = 5  # characters
_MOST_FONTS = 300  # that are tried
_PATIENCE = 5  # seconds that fontconfig may take


class Captions:
    """Draws captions on frames of one size; keeps those that come again."""

    def __init__(self, height: int, width: int, classes: Sequence[str]) -> None:
        """For frames of `height` x `width` px. Raises EnvironmentProblem where Pillow is missing or can't draw."""
        _pillow()
        self._height, self._width, self._classes = height, width, classes
        self._size = max(11, round(min(height, 0.75 * width) * 0.042) + 3)  # px: 13 of 240, 48 of 1080
        self._drawn = lru_cache(maxsize=16)(self._draw)

    def put(self, pixels: NDArray[np.uint8], label: str, probability: float | None) -> None:
        """Draw on `pixels` uint8 [H, W, 3], in place: the label, and with a probability that and a bar."""
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
        text, font = self._fitting(whole, figure, self._width - 2 * (size // 2) - 2 * pad)
        if len(text) < min(len(whole), _LEAST_SHOWN):  # too narrow for both: the label matters more
            figure, percent = "", None
            text, font = self._fitting(whole, figure, self._width - 2 * (size // 2) - 2 * pad)
        digits = _builtin(size)
        gap = round(size * 0.7) if figure else 0
        inner = round(font.getlength(text)) + gap + round(digits.getlength(figure))
        ascent, descent = font.getmetrics()
        height = ascent + descent + 2 * (pad // 2) + (bar + pad // 2 if figure else 0)
        image = Image.new("RGBA", (inner + 2 * pad, height), (0, 0, 0, 0))
        draw = ImageDraw.Draw(image)
        draw.rounded_rectangle((0, 0, image.width - 1, height - 1), radius=pad // 2 + 1, fill=(16, 18, 24, 205))
        baseline = pad // 2 + ascent
        draw.text((pad, baseline), text, font=font, fill=(255, 255, 255, 255), anchor="ls")
        if percent is not None:
            right = image.width - pad
            draw.text((right, baseline), figure, font=digits, fill=(255, 214, 92, 255), anchor="rs")
            top = height - pad // 2 - bar
            draw.rectangle((pad, top, right - 1, top + bar - 1), fill=(255, 255, 255, 60))
            filled = round((right - pad) * percent / 100)
            if filled:
                draw.rectangle((pad, top, pad + filled - 1, top + bar - 1), fill=(255, 214, 92, 255))
        return np.asarray(image)

    def _shown(self, label: str) -> str:
        """The label on one line; what no font here can show gives way to ? or, if that is all, to its number."""
        line = " ".join("".join(c if c.isprintable() else " " for c in label).split())
        font = font_for(line, self._size)
        known = "".join(c if c == " " or _has(font, c) else _bare(font, c) for c in line)
        if line and not known.strip("? "):
            return f"class {self._classes.index(label)}" if label in self._classes else known
        return known or "?"

    def _fitting(self, text: str, figure: str, room: int) -> tuple[str, Any]:
        """(text, font), the text shortened where it is wider than `room` px beside the figure."""
        font = font_for(text, self._size)
        room -= round(_builtin(self._size).getlength(figure)) + (round(self._size * 0.7) if figure else 0)
        dots = _ELLIPSIS if _has(font, _ELLIPSIS) else "..."
        shown = text
        while len(shown) > 1 and font.getlength(shown) > room:
            shown = shown.removesuffix(dots)[:-1].rstrip() + dots
            if shown == dots:
                break
        return shown, font


def _bare(font: Any, character: str) -> str:
    """What stands for a character that `font` lacks: its letter without the accent, or a question mark."""
    letters = [c for c in unicodedata.normalize("NFKD", character) if not unicodedata.combining(c)]
    return "".join(c if _has(font, c) else "?" for c in letters)


@lru_cache(maxsize=64)
def font_for(text: str, size: int) -> Any:
    """A font of `size` px that has all characters of `text`; Pillow's own where it does, or where none does."""
    own = _builtin(size)
    missing = sorted({c for c in text if not c.isspace() and not _has(own, c)})
    if not missing:
        return own
    from PIL import ImageFont

    for path in _font_files("".join(missing)):
        with suppress(OSError):
            font = ImageFont.truetype(path, size)
            if all(_has(font, c) for c in text if not c.isspace()):
                return font
    return own


def _font_files(characters: str) -> Iterator[str]:
    """Fonts of the system that may have `characters`: those that fontconfig names, then whatever lies about."""
    command = shutil.which("fc-list")
    if command:
        charset = " ".join(f"{ord(c):x}" for c in characters)
        with suppress(OSError, subprocess.SubprocessError):
            done = subprocess.run(
                [command, f":charset={charset}", "file"], capture_output=True, timeout=_PATIENCE, check=False
            )
            lines = done.stdout.decode("utf-8", "surrogateescape").splitlines()
            yield from _plainest(line.strip().rstrip(":").strip() for line in lines)
        return
    yield from _all_fonts()


@cache
def _all_fonts() -> tuple[str, ...]:
    found: list[str] = []
    for folder in _FONT_FOLDERS:
        files = sorted(Path(folder).expanduser().rglob("*"))
        found += [str(path) for path in files if path.suffix.lower() in (".ttf", ".otf", ".ttc")]
    return tuple(_plainest(found))


def _plainest(files: Iterable[str]) -> list[str]:
    """Font files, upright ones of normal weight first."""
    fancy = ("bold", "italic", "oblique", "mono", "thin", "light", "black", "condensed")
    return sorted(files, key=lambda path: (any(word in Path(path).name.lower() for word in fancy), path))[:_MOST_FONTS]


@cache
def _builtin(size: int) -> Any:
    return _pillow().load_default(size)


@lru_cache(maxsize=4096)
def _has(font: Any, character: str) -> bool:
    """Whether `font` shows `character` as anything but what it shows for those it lacks."""
    mask, lacking = font.getmask(character), font.getmask(_NO_GLYPH)
    return bool(mask.size != lacking.size or bytes(mask) != bytes(lacking))


@cache
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
