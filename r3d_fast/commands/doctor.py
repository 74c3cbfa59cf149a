"""The command `r3d-fast doctor`."""

from __future__ import annotations

import json
import sys

import click


@click.command()
@click.option("--json", "json_", is_flag=True, help="Print the result as JSON.")
def doctor(json_: bool) -> int:
    """Check this machine and say how to fix what is missing.

    The exit code is 0 if this machine can train, and 4 if it can't.
    """
    from r3d_fast.doctor.doctor import as_json, as_text, examine

    diagnosis = examine()
    click.echo(json.dumps(as_json(diagnosis), indent=1) if json_ else as_text(diagnosis, sys.stdout.encoding))
    return diagnosis.exit_code
