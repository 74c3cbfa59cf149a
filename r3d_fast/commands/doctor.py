"""The command `r3d-fast doctor`."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from pipelines.output.descriptors import STDOUT
from pipelines.output.files import write_json
from r3d_fast.console import lines_beside


@click.command()
@click.option(
    "--json", "json_file", type=click.Path(path_type=Path), is_flag=False, flag_value="-", metavar="[FILE]",
    help="Write the result as JSON to FILE; to stdout, and nothing else, with - or without FILE.",
)  # fmt: skip
def doctor(json_file: Path | None) -> int:
    """Check this machine and say how to fix what is missing.

    The exit code is 0 if this machine can train, and 4 if it can't.
    """
    from r3d_fast.doctor.doctor import as_json, as_text, examine

    say = lines_beside(json_file)
    diagnosis = examine()
    write_json(json_file, as_json(diagnosis))
    if json_file != STDOUT:
        for line in as_text(diagnosis, getattr(sys.stdout, "encoding", None)).splitlines():
            say(line)
    return diagnosis.exit_code
