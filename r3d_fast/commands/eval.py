"""The command `r3d-fast eval`."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from pipelines.errors import DataError
from pipelines.output.files import write_json
from r3d_fast.commands.options import config_option, file_option, override_option
from r3d_fast.console import counted, lines_beside

if TYPE_CHECKING:
    from r3d_fast.evaluation.evaluate import Evaluation
    from r3d_fast.evaluation.protocols import Protocol, SplitModel


@click.command("eval")
@click.option(
    "--run", type=click.Path(path_type=Path), help="Run folder: evaluate its best weights with its own config."
)
@config_option
@click.option("--weights", type=click.Path(path_type=Path), help="Weights to evaluate with the config of -c.")
@override_option
@click.option("--split", help="Split of the index to evaluate on (default: data.eval_split of the config).")
@click.option(
    "--protocol", type=click.Choice(["clip", "video", "video-all"]),
    help="clip: one clip per video; video: all windows of each video, averaged, as in the code of Hara et al. 2018; "
    "video-all: the same with a last window of one frame.",
)  # fmt: skip
@click.option("--views", type=click.IntRange(min=1), help="Clips per video.")
@click.option("--crops", type=click.Choice(["1", "3", "10"]), help="Crops per clip.")
@click.option(
    "--splits", metavar="1,2,3",
    help="Evaluate on several official splits and print their mean. {split} in --run, --weights, -c or -o stands for "
    "the number of the split.",
)  # fmt: skip
@click.option(
    "--out", "folder", type=click.Path(path_type=Path),
    help="Folder to write figures, tables, the confusion matrix and the prediction of each video to.",
)  # fmt: skip
@file_option("json", "all figures")
def evaluate(
    run: Path | None, config: str | None, weights: Path | None, overrides: tuple[str, ...], split: str | None,
    protocol: Protocol | None, views: int | None, crops: str | None, splits: str | None,
    folder: Path | None, json_file: Path | None,
) -> None:  # fmt: skip
    """Evaluate a run, or weights together with a config.

    Prints the accuracy of clips and of videos, and how many of the videos could be read. Give either --run, or -c and
    --weights. To evaluate on several splits, train a model on each: --splits 1,2,3 --run runs/split{split}.
    """
    from r3d_fast.commands.tables import print_evaluation, print_means
    from r3d_fast.evaluation.evaluate import evaluation_json
    from r3d_fast.evaluation.protocols import mean_of_splits, models_of_splits, protocol_overrides
    from r3d_fast.evaluation.result_files import check_evaluation_folder, write_evaluation
    from r3d_fast.ranks.group import join_group

    protocols = protocol_overrides(protocol, views, None if crops is None else int(crops))
    parts = models_of_splits(splits, run, weights, config, [*overrides, *protocols])
    configs = _load(parts)
    say = lines_beside(json_file, inputs=_inputs(parts, configs), others=folder is not None)
    if folder is not None:
        for part in parts:
            check_evaluation_folder(_folder_of(folder, part.number))
    evaluations: list[Evaluation] = []
    reports: dict[str, Any] = {}
    with join_group(configs[0].train.rank_timeout_seconds) as group:
        for part, chosen in zip(parts, configs, strict=True):
            evaluation, classes = _evaluate(part.model, chosen, split, group)
            evaluations.append(evaluation)
            if not group.is_first:
                continue
            # Files come first, because printing fails if the program that reads stdout has ended.
            reports[str(part.number)] = {"model": str(part.model), **evaluation_json(evaluation, classes)}
            written: tuple[str, ...] = ()
            target = None if folder is None else _folder_of(folder, part.number)
            if target is not None:
                written = write_evaluation(target, evaluation, classes)
            if part.number is None:
                write_json(json_file, reports["None"])
            else:
                say(f"split {part.number}: {part.model}")
            print_evaluation(evaluation, classes, say)
            if written:
                say(f"wrote {target}: {', '.join(written)}")
    if group.is_first and splits is not None:
        means = mean_of_splits(evaluations)
        write_json(json_file, {"splits": reports, "mean": means})
        print_means(means, ", ".join(reports), say)
    bad = [clip for evaluation in evaluations for clip in evaluation.bad]
    if bad:
        clips = counted(len(bad), "clip")
        raise DataError(f"{clips} could not be read; the figures are of the others; first reason: {bad[0].reason}")


def _folder_of(folder: Path, split: int | None) -> Path:
    """The folder for the files of one split; `folder` itself where there is one evaluation alone."""
    return folder if split is None else folder / f"split{split}"


def _load(parts: list[SplitModel]) -> list[Any]:
    """The config of each part. Checks all configs, models and indexes before the first part is evaluated."""
    from r3d_fast.config.config import load_config
    from r3d_fast.evaluation.protocols import check_splits
    from r3d_fast.loaders import open_index
    from r3d_fast.weights.checkpoint import find_weights

    for part in parts:
        find_weights(part.model)
    configs = [load_config(part.config, part.overrides) for part in parts]
    numbers = [part.number for part in parts if part.number is not None]
    if numbers:
        check_splits([open_index(config.data) for config in configs], numbers)
    return configs


def _inputs(parts: list[SplitModel], configs: list[Any]) -> Iterator[Path]:
    """The files that the evaluation reads, but for the videos."""
    from pipelines.index.locations import find_index
    from r3d_fast.config.yaml_files import config_files
    from r3d_fast.weights.checkpoint import model_files

    for part, config in zip(parts, configs, strict=True):
        yield from (*model_files(part.model), *config_files(part.config))
        index = config.data.index or (config.data.root and find_index(config.data.root))
        if index:
            yield index


def _evaluate(model: Path, config: Any, split: str | None, group: Any) -> tuple[Evaluation, tuple[str, ...]]:
    """(evaluation of one model, its class names); shows a progress bar meanwhile."""
    from r3d_fast.evaluation.evaluate import evaluate
    from r3d_fast.progress import Progress

    bar: list[Progress] = []

    def on_batch(done: int, total: int) -> None:
        if not bar:
            bar.append(Progress("eval", total, 0, max(1, total // 10)))
        bar[0].step(done=done)

    try:
        return evaluate(model, config, split=split, on_batch=on_batch, group=group)
    finally:
        for shown in bar:
            shown.__exit__(None, None, None)
