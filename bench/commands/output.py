"""Where the results of a command go, and its command line as a report may publish it."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import click

from r3d_fast.descriptors import is_stdout
from r3d_fast.files import check_writable

if TYPE_CHECKING:
    from bench.reporting.results import Report


@dataclass(frozen=True)
class Output:
    """Results as text on stdout, as JSON in `json_file`, as a chart in `plot`.

    Where the JSON goes to stdout (`-`, /dev/stdout) the text goes to stderr. Raises UsageError, before anything is
    measured, for a file that could not be written in the end.
    """

    json_file: Path | None
    plot: Path | None = None

    def __post_init__(self) -> None:
        """Raise what writing the files would raise."""
        if self.plot is not None:
            from bench.reporting.chart import figure_class

            figure_class(self.plot)
        for file in (self.json_file, self.plot):
            check_writable(file)

    def print(self, text: str) -> None:
        """Print results for people to read."""
        click.echo(text, err=is_stdout(self.json_file))

    def write(self, report: Report) -> None:
        """Write the JSON and the chart that were asked for."""
        from bench.reporting import chart, results

        if self.json_file is not None:
            results.save(report, self.json_file)
        if self.plot is not None and isinstance(report, results.ThroughputReport):
            chart.draw(report, self.plot)


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
