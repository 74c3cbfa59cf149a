"""Where the results of a command go, and its command line as a report may publish it."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from pipelines.output.descriptors import is_stdout
from r3d_fast.console import lines_beside

if TYPE_CHECKING:
    from bench.reporting.results import Report


class Output:
    """Results as text on stdout, as JSON in a file, as a chart in another.

    Where the JSON goes to stdout (`-`, /dev/stdout) the text goes to stderr.
    """

    def __init__(self, json_file: Path | None, plot: Path | None = None, *, inputs: Iterable[Path] = ()) -> None:
        """Raise, before anything is measured, the UsageError or EnvironmentProblem that writing the files would.

        `inputs` are files that are read, and must not be replaced.
        """
        if plot is not None:
            from bench.reporting.chart import figure_class

            figure_class(plot)
        self._json_file, self._plot = json_file, plot
        self._say = lines_beside(json_file, plot, inputs=inputs)

    def print(self, text: str) -> None:
        """Print results for people to read."""
        for line in text.split("\n"):
            self._say(line)

    def show(self, report: Report, text: str | None = None) -> None:
        """Print `text` (None: the tables of the report), and write the report's JSON and chart."""
        self.print(_as_text(report) if text is None else text)
        self.write(report)

    def write(self, report: Report) -> None:
        """Write the JSON and the chart that were asked for."""
        from bench.reporting import chart, curve_chart, results

        if self._json_file is not None:
            results.save(report, self._json_file)
        if self._plot is not None:
            if isinstance(report, results.ThroughputReport):
                chart.draw(report, self._plot)
            else:
                curve_chart.draw_curves(report.values, self._plot)

    def keep(self, report: Report) -> None:
        """Write the JSON of what is measured so far, if it goes into a file of its own."""
        from bench.reporting import results

        path = self._json_file
        if path is not None and not is_stdout(path) and (path.is_file() or not path.exists()):
            results.save(report, path)


def _as_text(report: Report) -> str:
    from bench.reporting.results import StudyReport
    from bench.reporting.tables import tables
    from bench.reporting.terminal import as_text

    return tables([report]).rstrip("\n") if isinstance(report, StudyReport) else as_text(report)


def published_command(data: Path | None = None, arguments: Sequence[str] | None = None) -> str:
    """The command line (default: this process's), of each path only its name.

    `data` is a folder that was given: a path such as `.` is published by the name of what it is.
    """
    words = ["bench"]
    for word in sys.argv[1:] if arguments is None else arguments:
        name, equals, value = word.partition("=")
        if data is not None and word == str(data):
            words.append(data.resolve().name)
        elif data is not None and equals and value == str(data):
            words.append(f"{name}={data.resolve().name}")
        elif equals and "/" in value:
            words.append(f"{name}={Path(value).name}")
        else:
            words.append(Path(word).name)
    return shlex.join(words)
