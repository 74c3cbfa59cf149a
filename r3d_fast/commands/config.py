"""The commands `r3d-fast config show` and `r3d-fast config keys`."""

from __future__ import annotations

import json
import textwrap

import click

from pipelines.errors import UsageError
from r3d_fast.commands.options import complete_config, override_option
from r3d_fast.console import print_line


@click.group()
def config() -> None:
    """Show the configs that come with r3d-fast, and what can be set in one."""


@config.command("show")
@click.argument("name", required=False, metavar="[CFG]", shell_complete=complete_config)
@override_option
def show(name: str | None, overrides: tuple[str, ...]) -> None:
    """Show all settings of the config CFG, those of its bases too; without CFG list the configs.

    CFG is the name of one that r3d-fast ships, or a YAML file. What is printed is a config file itself.
    """
    from r3d_fast.config.config import dump_config, load_config
    from r3d_fast.config.yaml_files import config_files, shipped_configs, summary_of

    if name is None:
        if overrides:
            raise UsageError("-o without a config: nothing to change; expected r3d-fast config show CFG -o ...")
        width = max(map(len, shipped_configs()))
        for shipped, path in sorted(shipped_configs().items()):
            print_line(f"{shipped:{width}}  {summary_of(path)}")
        return
    found = load_config(name, overrides)
    for path in reversed(config_files(name)):
        print_line(f"# {path}")
    for override in overrides:
        print_line(f"# -o {override}")
    for line in dump_config(found).splitlines():
        print_line(line)


@config.command("keys")
@click.argument("words", nargs=-1, metavar="[WORD]...")
def keys(words: tuple[str, ...]) -> None:
    """Show the keys of a config with their defaults and meanings: all, or those in which each WORD occurs.

    Example: r3d-fast config keys learning rate
    """
    from r3d_fast.config.reference import config_keys

    found = [key for key in config_keys() if all(word.lower() in f"{key.name} {key.meaning}".lower() for word in words)]
    if not found:
        raise UsageError(f"no key with {' '.join(words)} in its name or meaning; r3d-fast config keys shows all")
    for name, default, meaning, _ in found:
        print_line(name if default is None else f"{name}  (default: {json.dumps(default)})")
        for line in textwrap.wrap(meaning, 96):
            print_line(f"    {line}")
