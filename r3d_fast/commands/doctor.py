"""`r3d-fast doctor`."""

from __future__ import annotations

import json
import sys

import click


@click.command()
@click.option("--json", "json_", is_flag=True, help="Print JSON.")
def doctor(json_: bool) -> int:
    """Say what this machine can do and how to mend what is missing; exit code 4 if it can't train."""
    from r3d_fast.doctor.doctor import as_json, as_text, examine

    diagnosis = examine()
    click.echo(json.dumps(as_json(diagnosis), indent=1) if json_ else as_text(diagnosis, sys.stdout.encoding))
    return diagnosis.exit_code
