"""The command `r3d-fast predict`."""

from __future__ import annotations

import glob
import os
import sys
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import click

from pipelines.containers.file_checks import MAX_PIXELS
from pipelines.errors import DataError, UsageError
from r3d_fast.commands.options import file_option
from r3d_fast.commands.predict.lines import say_classes, say_error
from r3d_fast.commands.predict.result_writers import Writer, opened_reports
from r3d_fast.console import lines_beside

if TYPE_CHECKING:
    from collections.abc import Iterator

    from r3d_fast.prediction.predictor import Predictor

_file = click.Path(path_type=Path)


@click.command()
@click.argument("model", type=_file)
@click.argument("videos", nargs=-1, required=True, type=click.Path())
@click.option(
    "--top", type=click.IntRange(min=1), default=5, show_default=True, help="How many classes to print per video."
)
@click.option("--views", metavar="N|all|paper", help="Clips per video (default: as in the model's evaluation).")
@click.option("--batch-size", type=click.IntRange(min=1), help="Clips computed at once (default: 8 on a CPU).")
@click.option(
    "--device", type=click.Choice(["auto", "cpu", "gpu"]), default="auto", show_default=True,
    help="auto: the GPU if there is one that works, else the CPU.",
)  # fmt: skip
@click.option(
    "--allow-partial", is_flag=True, help="Also predict truncated and damaged videos, up to where they decode."
)
@click.option(
    "--max-pixels", type=click.IntRange(min=1), default=MAX_PIXELS, show_default=True,
    help="Don't read videos whose frames have more pixels than this.",
)  # fmt: skip
@click.option("--timeline", is_flag=True, help="Predict second by second; for videos of any length.")
@click.option("--events", is_flag=True, help="Tell from when to when a class is seen; for videos of any length.")
@click.option("--hop", type=float, help="Over time: seconds from one prediction to the next (default: 1).")
@click.option(
    "--window", type=float,
    help="Over time: seconds of video that each prediction looks at (default: as in the model's training).",
)  # fmt: skip
@click.option(
    "--threshold", type=float,
    help="Over time: name a class where its probability is at least this (default: 0; for --events 0.5).",
)  # fmt: skip
@click.option(
    "--smooth", type=float, metavar="SECONDS",
    help="Over time: average probabilities over so many seconds (default: 0).",
)  # fmt: skip
@click.option(
    "--reconnect", type=float, default=60.0, show_default=True, metavar="SECONDS",
    help="How long to try to connect again to a live source that was cut.",
)  # fmt: skip
@click.option(
    "--strip", type=_file, metavar="FILE.png|DIR",
    help="Over time: draw which class is seen when, with frames; of several videos into DIR/NAME.png.",
)  # fmt: skip
@click.option(
    "--annotate", "annotate_to", type=_file, metavar="DIR",
    help="Write each video to DIR/NAME.mp4 with the predicted label drawn on it.",
)  # fmt: skip
@click.option(
    "--font", type=_file, metavar="FILE", help="With --annotate: a TrueType font that has the letters of the labels."
)
@click.option(
    "--features", type=_file, metavar="FILE",
    help="Write the features of each clip: FILE.npy, FILE.parquet or a folder.",
)  # fmt: skip
@file_option("json", "the predictions")
@file_option("csv", "the predictions")
def predict(
    model: Path,
    videos: tuple[str, ...],
    device: str,
    allow_partial: bool,
    max_pixels: int,
    **options: Any,
) -> None:
    """Predict the classes of videos.

    MODEL is a run folder, a checkpoint, a .safetensors file or a folder that `r3d-fast export` wrote. VIDEOS are files,
    folders or quoted globs; - reads a list of files from stdin. With --timeline or --events VIDEOS may also be a live
    source: an address (rtsp://, http:// and the like), a camera (/dev/video0), or pipe: for a video on stdin.
    """
    from r3d_fast.commands.predict.over_time import only_live_source, predict_over_time, time_options
    from r3d_fast.prediction.predictor import Predictor
    from r3d_fast.prediction.video_paths import find_videos
    from r3d_fast.prediction.writers.features import feature_outputs
    from r3d_fast.prediction.writers.strip import is_picture

    over_time = time_options(options)
    source = only_live_source(videos, over_time)
    outputs = [options["json_file"], options["csv_file"], *feature_outputs(options["features"])]
    if options["strip"] is not None and is_picture(options["strip"]):
        outputs.append(options["strip"])
    others = any(options[name] is not None for name in ("annotate_to", "strip"))
    say = lines_beside(*outputs, inputs=_inputs(model, videos, options["font"]), others=others)
    _check_not_beside(options["annotate_to"], videos)
    found = find_videos(videos, _stdin() if "-" in videos else None)
    if options["strip"] is not None and is_picture(options["strip"]):
        found = _only_one(found, options["strip"])
    predictor = Predictor(model, device=device, allow_partial=allow_partial, max_pixels=max_pixels)
    if over_time is not None:
        total, failed = predict_over_time(predictor, source or found, over_time, say)
    else:
        total, failed = _predictions(predictor, found, say, **options)
    if failed:
        raise DataError(f"{failed} of {total} videos could not be read")


def _inputs(model: Path, videos: tuple[str, ...], font: Path | None) -> list[Path]:
    """The files that the command reads, as far as the user named them."""
    from r3d_fast.export.manifest import exported_files
    from r3d_fast.weights.checkpoint import model_files

    named = [Path(video) for video in videos if os.path.isfile(video)]  # noqa: PTH113 - takes any text
    return [*named, *model_files(model), *exported_files(model), *([] if font is None else [font])]


def _only_one(videos: Iterator[str], picture: Path) -> Iterator[str]:
    """`videos`, if that is one. Raises UsageError for several, as the strips of all would go to the file `picture`."""
    found = list(islice(videos, 2))
    if len(found) > 1:
        raise UsageError(f"--strip {picture}: a picture of one video, and there are several; give a folder for theirs")
    return iter(found)


def _check_not_beside(folder: Path | None, videos: tuple[str, ...]) -> None:
    """Raise UsageError if one of `videos` is or lies in `folder`, where an annotated video could replace it."""
    if folder is None:
        return
    place = os.path.realpath(folder)
    for named in videos:
        for video in [named] if os.path.lexists(named) else glob.iglob(named, recursive=True):  # noqa: PTH207
            found = os.path.realpath(video)
            if place in (found, os.path.dirname(found), os.path.realpath(os.path.dirname(video))):  # noqa: PTH120
                raise UsageError(
                    f"--annotate {folder}: the videos are in this folder, and could be replaced; choose another one"
                )


def _stdin() -> BinaryIO:
    """Stdin without a buffer: a buffer has a lock, and a thread that waits for input would hold it when we exit."""
    try:
        return open(sys.stdin.fileno(), "rb", buffering=0, closefd=False)
    except OSError:  # sys.stdin was replaced by an object in memory
        return sys.stdin.buffer


def _predictions(
    predictor: Predictor, videos: Iterator[str], say: Callable[[str], None], *, views: str | None, top: int,
    batch_size: int | None, features: Path | None, json_file: Path | None, csv_file: Path | None, **_: Any,
) -> tuple[int, int]:  # fmt: skip
    """Predict each video as a whole; returns (number of videos, number of those that could not be read)."""
    from r3d_fast.prediction.writers.features import feature_file
    from r3d_fast.prediction.writers.json_csv import predictions_csv, predictions_json

    total, failed, clips = 0, 0, _views(views)
    with ExitStack() as stack:
        as_csv: Writer = partial(predictions_csv, top=top)
        reports = opened_reports(
            stack, [(json_file, predictions_json), (csv_file, as_csv)], others=features is not None
        )
        on_clip = stack.enter_context(feature_file(features)) if features is not None else None
        for item in predictor.stream(videos, top=top, views=clips, batch_size=batch_size, on_clip=on_clip):
            total, failed = total + 1, failed + (item.error is not None)
            if item.classes:
                say_classes(say, item.video, "", item.classes)
            if item.error is not None:
                say_error(item.video, "", item.error)
            for add in reports:
                add(item)
    return total, failed


def _views(given: str | None) -> int | str | None:
    """The value of --views: a number, "all", "paper" or None. Raises UsageError for anything else."""
    if given in (None, "all", "paper"):
        return given
    if not given.isdecimal() or int(given) < 1:
        raise UsageError(f"--views {given}: expected a number of clips, all or paper")
    return int(given)
