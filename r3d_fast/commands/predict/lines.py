"""The lines in which predictions are printed."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from r3d_fast.console import tell

if TYPE_CHECKING:
    from r3d_fast.prediction.top_classes import TopClasses


def say_classes(say: Callable[[str], None], video: str, when: str, classes: TopClasses) -> None:
    """Pass the classes of a video to `say`, `-` where there are none; `when` is the time in it, such as " 2 s"."""
    named = ", ".join(f"{label} {100 * probability:.1f} %" for label, probability in classes)
    say(f"{video}:{when} {named or '-'}")


def say_error(video: str, when: str, error: str) -> None:
    """Print on stderr why a video, or the rest of it, can't be read; `when` as in `say_classes`."""
    tell(f"{video}:{when} error: {error}")
