"""Options that several commands take."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

config_option = click.option(
    "-c", "--config", "config", metavar="CFG", help="A shipped config by name, or a YAML file."
)
override_option = click.option(
    "-o", "overrides", multiple=True, metavar="SECTION.KEY=VALUE", help="Override a value; repeatable."
)


def file_option(name: str, what: str) -> Callable[[Any], Any]:
    """The option `--NAME FILE`, handed on as `NAME_file`, which writes `what`."""
    return click.option(
        f"--{name}", f"{name}_file", type=click.Path(path_type=Path), metavar="FILE",
        help=f"Write {what} as {name.upper()}; -: to stdout, and the text to stderr.",
    )  # fmt: skip
