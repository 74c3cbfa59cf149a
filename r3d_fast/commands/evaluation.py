"""`r3d-fast eval`."""

from __future__ import annotations

from pathlib import Path

import click

from pipelines.errors import DataError, UsageError
from r3d_fast.commands.options import config_option, override_option, write_json


@click.command("eval")
@click.option("--run", type=click.Path(path_type=Path), help="Run folder: its best weights, its config.")
@config_option
@click.option("--weights", type=click.Path(path_type=Path), help="Weights to evaluate with -c.")
@override_option
@click.option("--split", help="Split of the index (default: data.eval_split).")
@click.option("--protocol", type=click.Choice(["clip", "video"]), help="clip: one clip a video; video: every window.")
@click.option("--views", type=click.IntRange(min=1), help="Clips a video.")
@click.option("--json", "json_file", type=click.Path(path_type=Path), help="Write all figures as JSON.")
def evaluate(
    run: Path | None, config: str | None, weights: Path | None, overrides: tuple[str, ...], split: str | None,
    protocol: str | None, views: int | None, json_file: Path | None,
) -> None:  # fmt: skip
    """Evaluate a run, or weights on the data of a config; says how many of how many videos it could read."""
    from r3d_fast.checkpoint import find_weights
    from r3d_fast.config import load_config
    from r3d_fast.evaluate import evaluate as run_evaluation
    from r3d_fast.evaluate import report
    from r3d_fast.launch import rank_and_count
    from r3d_fast.runlog import Progress
    from r3d_fast.summary import print_evaluation

    if (run is None) == (weights is None) or (weights is not None and config is None):
        raise UsageError("expected either --run DIR, or -c CFG with --weights FILE")
    if run is not None and config is None:
        config = str(run / "config.yaml")
    if protocol is not None and views is not None:
        raise UsageError("--protocol and --views both say how many clips a video; give one")
    count = {"clip": "1", "video": "all", None: str(views) if views else None}[protocol]
    assert config is not None
    model = run or weights
    assert model is not None
    find_weights(model)
    chosen = load_config(config, [*overrides, *([f"eval.views={count}"] if count else [])])
    bar: list[Progress] = []

    def on_batch(done: int, total: int) -> None:
        if not bar:
            bar.append(Progress("eval", total, 0, max(1, total // 10)))
        bar[0].step(done=done)

    try:
        evaluation, classes = run_evaluation(model, chosen, split=split, on_batch=on_batch)
    finally:
        for shown in bar:
            shown.__exit__(None, None, None)
    if rank_and_count()[0] == 0:
        print_evaluation(evaluation, classes, click.echo)
        write_json(json_file, report(evaluation, classes))
    if evaluation.bad:
        raise DataError(
            f"{len(evaluation.bad)} clips could not be read; the figures are of the others; "
            f"first: {evaluation.bad[0].reason}"
        )
