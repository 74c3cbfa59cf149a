"""The command `r3d-fast data preview`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from pipelines.errors import DataError
from pipelines.output.files import new_file, write_file
from r3d_fast.commands.options import config_option, folder_config, index_argument, index_at, override_option
from r3d_fast.console import counted, lines_beside

if TYPE_CHECKING:
    from pipelines.index.video_index import VideoIndex
    from r3d_fast.config.config import Config
    from r3d_fast.preview.shown_clips import ShownClip

_path = click.Path(path_type=Path)


@click.command("preview")
@index_argument
@config_option
@override_option
@click.option("--split", metavar="NAME", help="Split of the index (default: data.train_split of the config).")
@click.option(
    "--clips", "count", type=click.IntRange(1, 64), default=8, show_default=True, help="How many clips to show."
)
@click.option(
    "--out", type=_path, metavar="FILE.png", default="preview.png", show_default=True, help="Picture to write."
)
@click.option("--mp4", type=_path, metavar="FILE.mp4", help="Also write a video in which the clips play side by side.")
def preview(
    index: Path, config: str | None, overrides: tuple[str, ...], split: str | None, count: int, out: Path,
    mp4: Path | None,
) -> None:  # fmt: skip
    """Show clips exactly as a model gets them, in a picture.

    INDEX is a folder that is indexed, or an index file. Each row is a clip of the loader, after sampling, crop, mirror,
    colours and mixing, with its label, its file and the numbers of its frames. Of the training split these are the
    first clips of a training; of another split clips as in an evaluation, spread evenly over it.
    """
    from r3d_fast.config.config import load_config
    from r3d_fast.preview.contact_sheet import contact_sheet, legend
    from r3d_fast.preview.moving_sheet import write_moving_sheet

    config = config or folder_config(overrides)
    chosen = load_config(config, overrides)
    say = lines_beside(out, mp4, inputs=[index])
    opened = index_at(index)
    split = split or chosen.data.train_split
    clips, title = _clips(opened, split, chosen, count)
    write_file(out, contact_sheet(clips, f"{title}, config {config}\n{legend(chosen.clip, chosen.augment)}"))
    say(f"{out}: {counted(len(clips), 'clip')} of split {split} of {opened.path}")
    if mp4 is not None:
        with new_file(mp4) as file:
            write_moving_sheet(file, clips)
        say(f"{mp4}: the same clips, moving")
    bad = [clip for clip in clips if clip.problem]
    if bad:
        raise DataError(f"{len(bad)} of {len(clips)} clips can't be read; first: {bad[0].problem}")


def _clips(index: VideoIndex, split: str, config: Config, count: int) -> tuple[list[ShownClip], str]:
    """(clips to show, what they are in words)."""
    from r3d_fast.preview.chosen_clips import evaluation_clips, training_clips

    if split == config.data.train_split:
        clips = training_clips(
            index, split, config.clip, config.augment, config.loader, config.train, count,
            balanced=config.data.balance == "sampling",
        )  # fmt: skip
        return clips, f"Clips of the first batch of a training on {index.path.name}, split {split}"
    clips = evaluation_clips(index, split, *config.eval_specs(), count)
    return clips, f"Clips of an evaluation on {index.path.name}, split {split}"
