"""Command line options that several commands share."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.shell_completion import CompletionItem

from pipelines.errors import DataError
from r3d_fast.console import quoted

if TYPE_CHECKING:
    from pipelines.index.video_index import VideoIndex


def complete_config(_: click.Context, __: click.Parameter, typed: str) -> list[CompletionItem]:
    """For a shell: the shipped configs that begin with what was typed, or else files."""
    from r3d_fast.config.yaml_files import shipped_configs, summary_of

    shipped = sorted(shipped_configs().items())
    found = [CompletionItem(name, help=summary_of(path)) for name, path in shipped if name.startswith(typed)]
    return found or [CompletionItem(typed, type="file")]


def _complete_override(_: click.Context, __: click.Parameter, typed: str) -> list[CompletionItem]:
    """For a shell: the keys of a config that begin with what was typed, and their values where they have few."""
    from r3d_fast.config.reference import config_keys

    items = []
    for name, _default, meaning, choices in config_keys():
        if typed.startswith(f"{name}="):
            items += [CompletionItem(value) for choice in choices if (value := f"{name}={choice}").startswith(typed)]
        elif name.startswith(typed):
            items.append(CompletionItem(f"{name}=", help=meaning))
    return items


FROM_SCRATCH, FINETUNE = "folder_r3d18", "folder_finetune"  # configs for a folder of videos

config_option = click.option(
    "-c", "--config", "config", metavar="CFG", shell_complete=complete_config,
    help="Config: the name of one that r3d-fast ships, or a YAML file.",
)  # fmt: skip
override_option = click.option(
    "-o", "overrides", multiple=True, metavar="SECTION.KEY=VALUE", shell_complete=_complete_override,
    help="Change one value of the config. May be given several times.",
)  # fmt: skip


def file_option(name: str, what: str) -> Callable[[Any], Any]:
    """The option `--NAME FILE`, which says where to write `what`; the command gets it as the argument `NAME_file`."""
    return click.option(
        f"--{name}", f"{name}_file", type=click.Path(path_type=Path), metavar="FILE",
        help=f"Write {what} as {name.upper()} to FILE. With -, to stdout; other text then goes to stderr.",
    )  # fmt: skip


index_argument = click.argument("index", type=click.Path(path_type=Path))


def index_at(path: Path) -> VideoIndex:
    """The index at `path`, which is an index file or a folder of videos that is indexed. Raises DataError if not."""
    from pipelines.index.locations import find_index
    from pipelines.index.video_index import VideoIndex

    if not path.is_dir():
        return VideoIndex.open(path)
    found = find_index(path)
    if found is None:
        raise DataError(f"{path}: not indexed yet; first run: {quoted('r3d-fast', 'data', 'index', path)}")
    return VideoIndex.open(found, path)


def folder_config(overrides: Sequence[str]) -> str:
    """The config for a folder of videos where -c names none.

    It is the one for fine-tuning where `overrides` name weights, or where known ones were fetched.
    """
    from r3d_fast.weights.known_weights import weights_at_hand

    if any(override.startswith("init.weights=") for override in overrides):
        return FINETUNE
    return FROM_SCRATCH if weights_at_hand() is None else FINETUNE
