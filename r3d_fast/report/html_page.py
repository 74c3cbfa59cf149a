"""The HTML of a report: the template filled in, with its style and its script inside, and nothing from elsewhere.

Whatever comes out of a run (names of videos, classes and folders, values of settings) is escaped by Jinja. The page's
own policy (Content-Security-Policy) lets the browser run only the page's own script, by its hash, and load nothing.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from r3d_fast.report.run_charts import DrawnChart
from r3d_fast.report.run_report import RunReport
from r3d_fast.report.standing import percent
from r3d_fast.runs.history import number
from r3d_fast.version import __version__

_FOLDER = Path(__file__).parent / "templates"


def render(
    runs: Sequence[RunReport], together: Sequence[DrawnChart], unequal: Sequence[tuple[str, list[str]]],
    recalls: Sequence[tuple[str, list[float | None]]], notes: Sequence[str] = (),
) -> str:  # fmt: skip
    """The page of `runs`, with the lines `notes` below its title.

    Of several runs `together` are the charts, `unequal` the settings in which they differ, each with its value in each
    run, and `recalls` the classes, each with its recall in each run.
    """
    environment = Environment(
        loader=FileSystemLoader(_FOLDER), autoescape=True, undefined=StrictUndefined, trim_blocks=True,
        lstrip_blocks=True,
    )  # fmt: skip
    environment.filters |= {"percent": percent, "exactly": _exactly, "number": number, "figure": _figure}
    script = (_FOLDER / "report.js").read_text(encoding="utf-8")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    return environment.get_template("report.html.j2").render(
        runs=runs, together=together, unequal=unequal, recalls=recalls, notes=notes, version=__version__,
        style=Markup((_FOLDER / "report.css").read_text(encoding="utf-8")), script=Markup(script),
        script_hash=f"'sha256-{digest}'", svg=Markup,
    )  # fmt: skip


def _exactly(value: Any) -> str:
    """A number in all its digits, for sorting and for tests; -1 where there is none, so that it sorts below all."""
    return "-1" if value is None or value != value else repr(value)


def _figure(value: float | None, digits: int = 4) -> str:
    """A number with so many significant digits; a dash where there is none."""
    return "\u2013" if value is None or value != value else f"{value:.{digits}g}"
