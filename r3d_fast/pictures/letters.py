"""Fonts that Pillow draws with, and texts in the letters that a font has."""

from __future__ import annotations

import unicodedata
from bisect import bisect_right
from functools import lru_cache
from pathlib import Path
from typing import Any

from pipelines.errors import EnvironmentProblem, UsageError

_ELLIPSIS = "…"
_NO_GLYPH = "\uffff"  # no font has this character: drawn, it shows the font's mark for missing characters


def load_font(size: int, file: Path | None = None) -> Any:
    """The font in `file` (None: Pillow's own), at `size` px.

    Raises UsageError where `file` can't be used, EnvironmentProblem where Pillow can't draw.
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


def wide_font(size: int, *, bold: bool = False) -> Any:
    """Matplotlib's own font at `size` px. It has the letters of more scripts than Pillow's, but no Chinese."""
    import matplotlib

    name = "DejaVuSans-Bold.ttf" if bold else "DejaVuSans.ttf"
    return load_font(size, Path(matplotlib.get_data_path()) / "fonts" / "ttf" / name)


def drawable(text: str, font: Any) -> str:
    """`text` on one line. A character that `font` lacks becomes its letter without the accent, or a question mark."""
    line = " ".join("".join(c if c.isprintable() else " " for c in text).split())
    return "".join(c if c == " " or _has(font, c) else _bare(font, c) for c in line)


def fitting(text: str, font: Any, room: float) -> str:
    """`text`, which `drawable` gave, cut short with dots at its end so that it fits into `room` px."""
    if len(text) <= 1 or font.getlength(text) <= room:
        return text
    dots = _ELLIPSIS if _has(font, _ELLIPSIS) else "..."
    # The most letters that fit: a longer text is never narrower.
    kept = bisect_right(range(1, len(text)), room, key=lambda count: font.getlength(text[:count].rstrip() + dots))
    return text[:kept].rstrip() + dots


def wrapped(text: str, font: Any, room: float) -> list[str]:
    """`text`, which `drawable` gave, in lines of whole words that fit into `room` px; a longer word is cut short."""
    lines = [""]
    for word in text.split(" "):
        longer = f"{lines[-1]} {word}" if lines[-1] else word
        if lines[-1] and font.getlength(longer) > room:
            lines.append(word)
        else:
            lines[-1] = longer
    return [fitting(line, font, room) for line in lines]


def fitting_end(text: str, font: Any, room: float) -> str:
    """As `fitting`, but cut short at its beginning: the end of a path tells files apart."""
    return fitting(text[::-1], font, room)[::-1]


@lru_cache(maxsize=4096)
def _has(font: Any, character: str) -> bool:
    """Whether `font` has `character`: whether it looks different from the font's mark for missing characters."""
    mask, lacking = font.getmask(character), font.getmask(_NO_GLYPH)
    return bool(mask.size != lacking.size or bytes(mask) != bytes(lacking))


def _bare(font: Any, character: str) -> str:
    """The replacement for a character that `font` lacks: its letter without the accent, or a question mark."""
    letters = [c for c in unicodedata.normalize("NFKD", character) if not unicodedata.combining(c)]
    return "".join(c if _has(font, c) else "?" for c in letters)


def _pillow() -> Any:
    from PIL import ImageFont, features

    if not features.check("freetype2"):
        raise EnvironmentProblem("this Pillow is built without FreeType; install the wheel from PyPI")
    return ImageFont
