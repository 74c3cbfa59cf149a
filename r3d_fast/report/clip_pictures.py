"""The pictures of a run's first batches, made small enough for a page, and how pictures get into a page at all."""

from __future__ import annotations

import base64
import io
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from PIL import Image

_WIDEST = 1180  # px: the width of the page; texts in the pictures are then as large as its own
_QUALITY = 72  # of JPEG
# The files that r3d_fast/preview/first_clips.py writes beside a training.
_FILES = {
    "train_clips.png": "Some clips of the first batch, as the model trains on them",
    "eval_clips.png": "Some clips of the evaluation, as the model gets them",
}


@dataclass(frozen=True)
class Picture:
    """A JPEG as a data URI, with its title and its size in px."""

    title: str
    uri: str
    width: int
    height: int


def clip_pictures(run: Path) -> list[Picture]:
    """The pictures of first batches that are in the folder `run`; one that can't be read is left out."""
    from PIL import Image  # takes a tenth of a second

    found = []
    for name, title in _FILES.items():
        try:
            with Image.open(run / name) as file:
                picture = file.convert("RGB")
        except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):  # all that Pillow raises for damage
            continue
        height = max(1, round(picture.height * _WIDEST / picture.width))
        if picture.width > _WIDEST:
            picture = picture.resize((_WIDEST, height), Image.Resampling.LANCZOS)
        found.append(Picture(title, jpeg_uri(picture), picture.width, picture.height))
    return found


def smaller(pixels: NDArray[np.uint8], *, width: int, height: int) -> NDArray[np.uint8]:
    """The picture `pixels`, uint8 [H, W, 3], in a size of `width` and `height` px."""
    from PIL import Image

    return np.asarray(Image.fromarray(pixels).resize((width, height), Image.Resampling.BOX))


def jpeg_uri(picture: Image.Image) -> str:
    """`picture` as a JPEG in a data URI."""
    file = io.BytesIO()
    picture.save(file, "JPEG", quality=_QUALITY)
    return f"data:image/jpeg;base64,{base64.b64encode(file.getvalue()).decode()}"
