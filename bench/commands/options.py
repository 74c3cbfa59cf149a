"""What several commands take: their options, and several numbers or names in one word."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from pipelines.errors import UsageError
from r3d_fast.commands.options import file_option

FILE = click.Path(path_type=Path)
DEVICE = click.Choice(["cpu", "gpu"])

data_option = click.option(
    "--data", type=FILE, metavar="ROOT", help="Folder of videos, a folder a class (default: makes its own)."
)
videos_option = click.option(
    "--videos", type=click.IntRange(min=1), metavar="N", help="Use no more of ROOT's videos, spread over all of them."
)
selection_option = click.option(
    "--selection", type=FILE, metavar="DIR",
    help="Keep the choice of --data's videos there; later runs with the same --data and --videos take it.",
)  # fmt: skip
threads_option = click.option(
    "--threads", type=click.IntRange(min=1), metavar="N", help="Threads (default: usable CPUs)."
)
json_option = file_option("json", "all figures")
plot_option = click.option("--plot", type=FILE, metavar="FILE", help="Draw a bar chart (.png or .svg).")


def config_option(what: str) -> Callable[[Any], Any]:
    """`--config`, which says `what` is measured."""
    return click.option(
        "-c", "--config", default="ucf101_r3d18", show_default=True, metavar="CFG",
        help=f"{what}: a shipped config by name, or a YAML file.",
    )  # fmt: skip


def rounds_option(what: str, *, default: int = 7, least: int = 5) -> Callable[[Any], Any]:
    """`--rounds`; `what` it counts."""
    return click.option(
        "--rounds", type=click.IntRange(min=least), metavar="N", default=default, show_default=True, help=f"{what}."
    )


def numbers(option: str, text: str) -> tuple[int, ...]:
    """The numbers of `1,2,4`, given for `option`. Raises UsageError for anything else."""
    try:
        found = tuple(int(part) for part in text.split(","))
    except ValueError:
        found = (0,)
    if min(found) < 1 or len(set(found)) < len(found):
        raise UsageError(f"{option} {text}: expected numbers of at least 1, each once, such as 2 or 1,2,4")
    return found


def names(option: str, text: str, known: tuple[str, ...]) -> tuple[str, ...]:
    """The names of `a,b`, given for `option`. Raises UsageError for one that isn't known, or is there twice."""
    found = tuple(part.strip() for part in text.split(","))
    if not set(found) <= set(known) or len(set(found)) < len(found):
        raise UsageError(f"{option} {text}: expected one or more of {', '.join(known)}, each once")
    return found
