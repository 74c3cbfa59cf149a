"""The command line `bench`: what its help says of every command."""

from __future__ import annotations

from collections.abc import Iterator

import click
import pytest
from bench_process import bench

from bench.cli import cli


def commands(command: click.Command, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], click.Command]]:
    """`command` and all below it, each with the words that call it."""
    yield path, command
    if isinstance(command, click.Group):
        for name, child in command.commands.items():
            yield from commands(child, (*path, name))


COMMANDS = dict(commands(cli))


def test_every_measurement_is_a_command() -> None:
    assert sorted(" ".join(path) for path, command in COMMANDS.items() if not isinstance(command, click.Group)) == [
        "compare", "gpu", "index", "loader soak", "loader throughput", "report", "studies accuracy", "studies cpu",
        "studies models", "studies predict", "studies resume", "train throughput",
    ]  # fmt: skip


@pytest.mark.parametrize("path", COMMANDS, ids=lambda path: " ".join(path) or "bench")
def test_help_fits_one_screen_and_explains_every_option(path: tuple[str, ...]) -> None:
    done = bench(*path, "--help")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith(" ".join(("Usage: bench", *path, "")))
    lines = done.stdout.splitlines()
    assert len(lines) <= 40
    assert max(map(len, lines)) <= 80
    assert "..." not in done.stdout.partition("Commands:")[2]  # none is cut short
    command = COMMANDS[path]
    for option in command.params:
        assert not isinstance(option, click.Option) or option.help
    assert ("--json FILE" in done.stdout) == ("json_file" in {option.name for option in command.params})


@pytest.mark.parametrize("group", ["loader", "train", "studies"])
def test_a_group_without_a_command_shows_its_help(group: str) -> None:
    done = bench(group)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == bench(group, "--help").stdout
