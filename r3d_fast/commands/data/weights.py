"""The command `r3d-fast data weights`."""

from __future__ import annotations

from pathlib import Path

import click

from pipelines.errors import UsageError
from r3d_fast.commands.data.bars import Bars
from r3d_fast.console import print_line, quoted, tell
from r3d_fast.weights.known_weights import FINETUNED, KNOWN_WEIGHTS, fetch_command, fetched_file

_OTHERS = (
    "The weights of Hara et al. (r3d18 to r3d200, r2plus1d18 and others) lie where only a browser gets them: the "
    "README of https://github.com/kenshohara/3D-ResNets-PyTorch links to them. Such a file is used as it is: "
    "-o init.weights=FILE.pth"
)


@click.command("weights")
@click.argument("name", required=False, type=click.Choice(list(KNOWN_WEIGHTS)))
@click.option(
    "--root", type=click.Path(path_type=Path), help="Folder for the weights (default: r3d-fast/weights in the cache)."
)
@click.option(
    "--mirror", default="", metavar="URL", help="Folder on the web to download from, instead of the authors' own."
)
def weights(name: str | None, root: Path | None, mirror: str) -> None:
    """Fetch the known weights NAME, to start from in fine-tuning; without NAME list them.

    They come from their authors' address and are checked by their SHA-256. If the command was interrupted, run it
    again: it continues where it stopped.
    """
    if name is None:
        if mirror:
            raise UsageError(f"--mirror {mirror} without a NAME: nothing to download; name the weights to fetch")
        _list(root)
        return
    from r3d_fast.download.weights_import import fetch_weights

    def log(line: str) -> None:
        bars.__exit__()
        tell(line)

    with Bars() as bars:
        file = fetch_weights(name, root, mirror=mirror, say=log, show=bars.show)
    known = KNOWN_WEIGHTS[name]
    print_line(f"{file}: {known.model}, trained on {known.trained_on} by {known.authors}")
    if name == FINETUNED and root is None:
        print_line("fine-tune on a folder of videos: r3d-fast train FOLDER")
    else:
        start = quoted("-o", f"init.weights={file}")
        print_line(f"fine-tune on a folder of videos: r3d-fast train FOLDER -c folder_finetune {start}")


def _list(root: Path | None) -> None:
    """Print a line for each of the known weights, and where there are others."""
    width = max(map(len, KNOWN_WEIGHTS))
    for name, known in KNOWN_WEIGHTS.items():
        file = fetched_file(name, root)
        state = f"fetched: {file}" if file.is_file() else f"fetch: {fetch_command(name)}"
        print_line(f"{name:{width}}  {known.model}  {known.trained_on}  {known.size / 1e6:.0f} MB  {known.authors}")
        print_line(f"{'':{width}}  {state}")
    print_line(_OTHERS)
