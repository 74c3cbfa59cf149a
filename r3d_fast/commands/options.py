"""Command line options that several commands share."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

config_option = click.option(
    "-c", "--config", "config", metavar="CFG", help="Config: the name of one that r3d-fast ships, or a YAML file."
)
override_option = click.option(
    "-o",
    "overrides",
    multiple=True,
    metavar="SECTION.KEY=VALUE",
    help="Change one value of the config. May be given several times.",
)


def file_option(name: str, what: str) -> Callable[[Any], Any]:
    """The option `--NAME FILE`, which says where to write `what`; the command gets it as the argument `NAME_file`."""
    return click.option(
        f"--{name}", f"{name}_file", type=click.Path(path_type=Path), metavar="FILE",
        help=f"Write {what} as {name.upper()} to FILE. With -, to stdout; other text then goes to stderr.",
    )  # fmt: skip
