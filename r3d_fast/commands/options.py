"""What several commands take, and how they write JSON."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from r3d_fast.files import whole_file

config_option = click.option(
    "-c", "--config", "config", metavar="CFG", help="A shipped config by name, or a YAML file."
)
override_option = click.option(
    "-o", "overrides", multiple=True, metavar="SECTION.KEY=VALUE", help="Override a value; repeatable."
)


def write_json(path: Path | None, values: Any) -> None:
    """Write `values` to `path`, if there is one. Raises UsageError where it can't be written."""
    if path is None:
        return
    with whole_file(path) as file:
        file.write(json.dumps(values, indent=1).encode() + b"\n")
