"""The commands `r3d-fast demo` and `r3d-fast data make-demo`."""

from __future__ import annotations

from pathlib import Path

import click

from r3d_fast.console import lines_beside, print_line


@click.command()
@click.option(
    "--dir", "folder", default="demo", show_default=True, type=click.Path(path_type=Path),
    help="Folder for everything that the demo makes.",
)  # fmt: skip
def demo(folder: Path) -> None:
    """Try all steps on a small generated data set.

    Makes the videos, indexes them, trains a model, evaluates it and predicts. On 2 CPU cores this takes about half a
    minute. No GPU is needed.
    """
    from r3d_fast.demo.demo import run_demo

    run_demo(folder, lines_beside(others=True))


@click.command("make-demo")
@click.argument("root", type=click.Path(path_type=Path))
@click.option("--videos-per-class", type=click.IntRange(min=1), help="Training videos per class (default: 24).")
@click.option("--test-per-class", type=click.IntRange(min=1), help="Test videos per class (default: 6).")
@click.option(
    "--seed", type=click.IntRange(min=0), default=0, show_default=True, help="Seed of the random textures and speeds."
)
def make_demo(root: Path, **options: int | None) -> None:
    """Generate the demo's videos in the folder ROOT.

    There are eight classes, each a motion of random textures, such as left or zoom_in. A single frame does not tell the
    class.
    """
    from r3d_fast.demo.videos import make_demo_dataset

    make_demo_dataset(root, **{key: value for key, value in options.items() if value is not None})  # type: ignore[arg-type]
    print_line(str(root))
