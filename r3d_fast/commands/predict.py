"""The command `r3d-fast predict`."""

from __future__ import annotations

import glob
import os
import sys
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, TextIO

import click

from pipelines.containers.file_checks import MAX_PIXELS
from pipelines.errors import DataError, UsageError
from r3d_fast.commands.options import file_option
from r3d_fast.files import check_outputs

if TYPE_CHECKING:
    from collections.abc import Iterator

    from r3d_fast.prediction.predictor import Predictor
    from r3d_fast.prediction.top_classes import TopClasses
    from r3d_fast.prediction.windows import Hops

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
@click.option(
    "--hop", type=float, help="With --timeline or --annotate: seconds from one prediction to the next (default: 1).",
)  # fmt: skip
@click.option(
    "--window", type=float, help="With --timeline or --annotate: seconds of video that each prediction looks at."
)
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
    views: str | None,
    device: str,
    timeline: bool,
    allow_partial: bool,
    max_pixels: int,
    **options: Any,
) -> None:
    """Predict the classes of videos.

    MODEL is a run folder, a checkpoint, a .safetensors file or a folder that `r3d-fast export` wrote. VIDEOS are files,
    folders or quoted globs; - reads a list of files from stdin.
    """
    from r3d_fast.prediction.predictor import Predictor
    from r3d_fast.prediction.video_paths import find_videos
    from r3d_fast.prediction.windows import Hops
    from r3d_fast.prediction.writers.features import feature_outputs

    timeline = timeline or options["annotate_to"] is not None
    hop, window = options.pop("hop"), options.pop("window")
    hops = Hops(Hops().seconds if hop is None else hop, window)  # refuses values out of range
    if not timeline and (hop is not None or window is not None):
        raise UsageError("--hop and --window are used only with --timeline or --annotate; add one of these")
    if timeline and (views is not None or options["features"] is not None):
        raise UsageError("--views and --features can't be combined with --timeline or --annotate; use one or the other")
    if options["font"] is not None and options["annotate_to"] is None:
        raise UsageError("--font is used only with --annotate; give both or none")
    outputs = [options["json_file"], options["csv_file"], *feature_outputs(options["features"])]
    out = sys.stderr if check_outputs(*outputs, inputs=_inputs(model, videos, options["font"])) else sys.stdout
    _check_not_beside(options["annotate_to"], videos)
    predictor = Predictor(model, device=device, allow_partial=allow_partial, max_pixels=max_pixels)
    found = find_videos(videos, _stdin() if "-" in videos else None)
    if timeline:
        total, failed = _moments(predictor, found, out, hops, **options)
    else:
        total, failed = _predictions(predictor, found, out, _views(views), **options)
    if failed:
        raise DataError(f"{failed} of {total} videos could not be read")


def _inputs(model: Path, videos: tuple[str, ...], font: Path | None) -> list[Path]:
    """The files that the command reads, as far as the user named them."""
    from r3d_fast.export.manifest import exported_files
    from r3d_fast.weights.checkpoint import model_files

    named = [Path(video) for video in videos if os.path.isfile(video)]  # noqa: PTH113 - takes any text
    return [*named, *model_files(model), *exported_files(model), *([] if font is None else [font])]


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
    predictor: Predictor, videos: Iterator[str], out: TextIO, views: int | str | None, *, top: int,
    batch_size: int | None, features: Path | None, json_file: Path | None, csv_file: Path | None, **_: Any,
) -> tuple[int, int]:  # fmt: skip
    """Predict each video as a whole; returns (number of videos, number of those that could not be read)."""
    from r3d_fast.prediction.writers.features import feature_file
    from r3d_fast.prediction.writers.json_csv import predictions_csv, predictions_json

    total = failed = 0
    with ExitStack() as stack:
        reports: list[Callable[[Any], object]] = []
        if json_file is not None:
            reports.append(stack.enter_context(predictions_json(json_file)))
        if csv_file is not None:
            reports.append(stack.enter_context(predictions_csv(csv_file, top)))
        on_clip = stack.enter_context(feature_file(features)) if features is not None else None
        for item in predictor.stream(videos, top=top, views=views, batch_size=batch_size, on_clip=on_clip):
            total, failed = total + 1, failed + (item.error is not None)
            _say(out, item.video, "", item.classes, item.error)
            for add in reports:
                add(item)
    return total, failed


def _moments(
    predictor: Predictor, videos: Iterator[str], out: TextIO, hops: Hops, *, top: int, batch_size: int | None,
    annotate_to: Path | None, font: Path | None, json_file: Path | None, csv_file: Path | None, **_: Any,
) -> tuple[int, int]:  # fmt: skip
    """Predict each video second by second; returns (number of videos, number of those that could not be read)."""
    from r3d_fast.prediction.writers.annotated_video import Annotator
    from r3d_fast.prediction.writers.json_csv import timeline_csv, timeline_json

    seen: dict[str, bool] = {}
    with ExitStack() as stack:
        reports: list[Callable[[Any], object]] = []
        if json_file is not None:
            reports.append(stack.enter_context(timeline_json(json_file)))
        if csv_file is not None:
            reports.append(stack.enter_context(timeline_csv(csv_file, top)))
        if annotate_to is not None:
            reports.append(
                stack.enter_context(Annotator(annotate_to, predictor.classes, font, predictor.accept.max_pixels)).add
            )
        for item in predictor.timeline(
            videos, hop=hops.seconds, window=hops.window_seconds, top=top, batch_size=batch_size
        ):
            seen[item.video] = seen.get(item.video, False) or item.error is not None
            when = f" {item.start:g} s" if item.start or not item.error else ""
            _say(out, item.video, when, item.classes, item.error)
            for add in reports:
                add(item)
    return len(seen), sum(seen.values())


def _say(out: TextIO, video: str, when: str, classes: TopClasses, error: str | None) -> None:
    """Print the classes of a video on `out`, and its error on stderr; `when` is the time in it, such as " 2 s"."""
    if classes:
        named = ", ".join(f"{label} {100 * probability:.1f} %" for label, probability in classes)
        _print(f"{video}:{when} {named}", out)
    if error is not None:
        _print(f"{video}:{when} error: {error}", sys.stderr)


def _print(text: str, stream: TextIO) -> None:
    """Print a line. Escapes characters in file and class names that the terminal can't show or takes as commands."""
    plain = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
    encoding = stream.encoding or "utf-8"
    print(plain.encode(encoding, "backslashreplace").decode(encoding), file=stream, flush=True)


def _views(given: str | None) -> int | str | None:
    """The value of --views: a number, "all", "paper" or None. Raises UsageError for anything else."""
    if given in (None, "all", "paper"):
        return given
    if not given.isdecimal() or int(given) < 1:
        raise UsageError(f"--views {given}: expected a number of clips, all or paper")
    return int(given)
