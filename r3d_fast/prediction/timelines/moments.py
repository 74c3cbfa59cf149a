"""Moments: what a timeline says of each hop of a video."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import numpy as np
from numpy.typing import NDArray

from r3d_fast.prediction.top_classes import TopClasses, top_classes_json


@dataclass(frozen=True)
class Moment:
    """The classes of one hop of a video, from `start` to `end` in seconds: (class, probability) pairs, likeliest first.

    `probabilities` float64 [C] are those of all classes. `at` is the time of day at `start`, for a live source. Where
    the video can't be read, or not to its end, a moment that starts there has an `error` and no classes.
    """

    video: str
    start: float
    end: float
    classes: TopClasses = ()
    error: str | None = None
    probabilities: NDArray[np.float64] | None = field(default=None, compare=False, repr=False)
    at: datetime | None = None

    def as_json(self) -> dict[str, Any]:
        """The moment as JSON values, without the video."""
        values: dict[str, Any] = {"start": self.start, "end": self.end, "classes": top_classes_json(self.classes)}
        if self.at is not None:
            values["at"] = self.at.isoformat(timespec="milliseconds")
        return values if self.error is None else {**values, "error": self.error}
