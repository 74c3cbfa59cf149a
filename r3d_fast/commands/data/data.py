"""The command group `r3d-fast data`."""

from __future__ import annotations

import click

from r3d_fast.commands.data.check import check
from r3d_fast.commands.data.demo import make_demo
from r3d_fast.commands.data.download import download
from r3d_fast.commands.data.index import index
from r3d_fast.commands.data.preview import preview
from r3d_fast.commands.data.weights import weights


@click.group()
def data() -> None:
    """Download, index, check, look at or generate a data set, and fetch weights to start from."""


for command in (index, check, preview, download, make_demo, weights):
    data.add_command(command)
