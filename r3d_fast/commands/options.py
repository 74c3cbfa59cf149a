"""Options that several commands take."""

from __future__ import annotations

import click

config_option = click.option(
    "-c", "--config", "config", metavar="CFG", help="A shipped config by name, or a YAML file."
)
override_option = click.option(
    "-o", "overrides", multiple=True, metavar="SECTION.KEY=VALUE", help="Override a value; repeatable."
)
