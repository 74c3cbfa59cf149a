"""Short forms of the settings that one changes most often: `--epochs 5` in place of `-o train.epochs=5`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import click

from pipelines.errors import UsageError
from r3d_fast.errors import ConfigError

if TYPE_CHECKING:
    from r3d_fast.config.config import Config


class ShortOption(NamedTuple):
    """An option `--NAME METAVAR` that sets the value `key` of the config."""

    name: str
    key: str
    metavar: str
    help: str


SHORT_OPTIONS = (
    ShortOption("epochs", "train.epochs", "N", "How often training goes through all videos."),
    ShortOption("batch", "loader.batch_size", "N", "Clips in a batch of training."),
    ShortOption(
        "lr", "optimizer.lr", "RATE", "Base learning rate, for batches of optimizer.lr_for_batch where that is set."
    ),
    ShortOption("size", "augment.size_px", "PX", "Side of the square clips."),
    ShortOption("frames", "clip.num_frames", "N", "Frames in a clip."),
    ShortOption("model", "model.name", "NAME", "The network; `r3d-fast models` lists all."),
)


def short_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Give `command` the options of SHORT_OPTIONS; it gets each under its name, as text, or None."""
    for option in reversed(SHORT_OPTIONS):
        text = f"{option.help} The same as -o {option.key}={option.metavar}."
        command = click.option(f"--{option.name}", metavar=option.metavar, help=text)(command)
    return command


def overrides_of(given: Mapping[str, str | None], overrides: Sequence[str]) -> list[str]:
    """The short options that are `given`, by name, as overrides `section.key=value`.

    Raises UsageError where `overrides`, those of -o, say otherwise about the same key.
    """
    found = []
    for name, key, _, _ in SHORT_OPTIONS:
        value = given[name]
        if value is None:
            continue
        short = f"{key}={value}"
        for other in overrides:
            if (says := _value(other, key)) is not None and says != _value(short, key):
                raise UsageError(f"--{name} {value} and -o {other} contradict each other; give only one of them")
        found.append(short)
    return found


def load_with_short_options(source: str, overrides: Sequence[str], given: Mapping[str, str | None]) -> Config:
    """The config `source` with `overrides`, in whose error messages short options are called as they were given."""
    from r3d_fast.config.config import load_config

    try:
        return load_config(source, overrides)
    except ConfigError as error:
        text = str(error)
        for name, key, _, _ in SHORT_OPTIONS:
            if given[name] is not None:
                text = text.replace(f"-o {key}={given[name]}:", f"--{name} {given[name]}:")
        raise ConfigError(text) from None


def _value(override: str, key: str) -> Any:
    """What an override says about `key`; None if nothing, or if it can't be read (`load_config` says why)."""
    from r3d_fast.config.yaml_files import parse_override

    try:
        value: Any = parse_override(override).data
    except ConfigError:
        return None
    for part in key.split("."):
        value = value.get(part) if isinstance(value, dict) else None
    return value
