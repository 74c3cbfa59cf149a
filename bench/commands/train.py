"""`bench train throughput`."""

from __future__ import annotations

from pathlib import Path

import click

from bench.commands.options import (
    DEVICE,
    config_option,
    data_option,
    json_option,
    names,
    plot_option,
    rounds_option,
    selection_option,
    videos_option,
)
from bench.commands.output import Output, published_command
from r3d_fast.commands.options import override_option
from r3d_fast.console import tell


@click.group()
def train() -> None:
    """Training."""


@train.command()
@config_option("What is trained")
@override_option
@data_option
@videos_option
@selection_option
@click.option("--device", type=DEVICE, default="cpu", show_default=True, help="Where it trains.")
@click.option("--precision", metavar="P[,P...]", help="fp32, bf16, fp16 (default: fp32; on a GPU all that it has).")
@click.option(
    "--layout", metavar="L[,L...]", help="NCDHW, NDHWC, NDHWC-padded (default: the config's; on a GPU the first two)."
)
@rounds_option("Turns of each contender")
@click.option(
    "--steps", type=click.IntRange(min=1), metavar="N", help="Steps timed in a turn (default: 2; on a GPU 2 s)."
)
@click.option("--batch-size", type=click.IntRange(min=1), metavar="N", help="Clips a batch (default: 8; on a GPU 64).")
@json_option
@plot_option
def throughput(
    config: str, overrides: tuple[str, ...], data: Path | None, videos: int | None, selection: Path | None,
    device: str, precision: str | None, layout: str | None, rounds: int, steps: int | None, batch_size: int | None,
    json_file: Path | None, plot: Path | None,
) -> None:  # fmt: skip
    """Clips per second of training.

    Beside them stand its two ceilings: the model without data, and the loader without a model.
    """
    from bench.training.training_throughput import LAYOUTS, PRECISIONS, TrainingSettings, measure_training
    from r3d_fast.config.yaml_files import config_files

    on_cpu = device == "cpu"
    settings = TrainingSettings(
        source=config,
        overrides=overrides,
        data=data,
        videos=videos,
        selection=selection,
        device=device,
        precisions=names("--precision", precision or ("fp32" if on_cpu else ",".join(PRECISIONS)), PRECISIONS),
        layouts=names("--layout", layout, LAYOUTS) if layout else (),
        batch_size=batch_size,
        rounds=rounds,
        steps=steps,
    )
    output = Output(json_file, plot, inputs=config_files(config))
    report = measure_training(settings, published_command(data), tell, output.keep)
    output.show(report)
