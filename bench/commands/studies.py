"""`bench studies`: a command a question, each with an answer in figures."""

from __future__ import annotations

from pathlib import Path

import click

from bench.commands.options import (
    DEVICE,
    FILE,
    config_option,
    data_option,
    json_option,
    rounds_option,
    threads_option,
)
from bench.commands.output import Output, published_command
from r3d_fast.commands.options import override_option
from r3d_fast.console import tell


@click.group()
def studies() -> None:
    """Measurements of one question each."""


@studies.command()
@click.option(
    "--mode", type=click.Choice(["train", "eval", "both"]), default="both", show_default=True, help="What to measure."
)
@rounds_option("Steps of each contender")
@threads_option
@json_option
def cpu(mode: str, rounds: int, threads: int | None, json_file: Path | None) -> None:
    """Training and evaluation on the CPU beside plain Paddle.

    PyTorch, if it is installed, stands beside them too. All take their steps in turns.
    """
    from bench.studies.cpu import MODES, measure_cpu, summary
    from pipelines.machine.cpus import usable_cpus

    output = Output(json_file)
    modes = MODES if mode == "both" else (mode,)
    report = measure_cpu(modes, rounds=rounds, threads=threads or usable_cpus(), command=published_command())
    output.show(report, summary(report))


@studies.command()
@click.argument("names", nargs=-1, metavar="[MODEL]...")
@rounds_option("Batches a model")
@threads_option
@json_option
def models(names: tuple[str, ...], rounds: int, threads: int | None, json_file: Path | None) -> None:
    """Clips a second that each MODEL evaluates on the CPU.

    Without MODEL all are measured. A clip has 16 frames of 112 px, a batch 8 clips.
    """
    from bench.studies.models import measure_models
    from pipelines.machine.cpus import usable_cpus

    output = Output(json_file)
    command = published_command()
    report = measure_models(names, rounds=rounds, threads=threads or usable_cpus(), command=command, say=output.print)
    output.write(report)


@studies.command()
@data_option
@config_option("Of the untrained model that predicts")
@click.option("--model", type=FILE, help="A run or an exported folder that predicts instead.")
@rounds_option("Turns of each part", default=5, least=1)
@json_option
def predict(data: Path | None, config: str, model: Path | None, rounds: int, json_file: Path | None) -> None:
    """Prediction of many files beside its ceiling.

    The ceiling is decoding and computing with nothing around them.
    """
    from bench.studies.predict import measure_prediction, summary
    from r3d_fast.config.yaml_files import config_files
    from r3d_fast.export.manifest import exported_files
    from r3d_fast.weights.checkpoint import model_files

    of_model = [] if model is None else [*model_files(model), *exported_files(model)]
    output = Output(json_file, inputs=[*config_files(config), *of_model])
    report = measure_prediction(
        data, config=config, model=model, rounds=rounds, command=published_command(data), say=tell
    )
    output.show(report, summary(report))


@studies.command()
@click.option(
    "--data", type=FILE, metavar="ROOT", help="Folder of videos, or an index (default: the demo's motions, made here)."
)
@click.option(
    "-c", "--config", metavar="CFG",
    help="What is trained: a shipped config by name, or a YAML file (default: the anchor experiment: ucf101_r3d18 on "
    "clips of 8 frames of 56 px).",
)  # fmt: skip
@override_option
@click.option(
    "--seeds", type=click.IntRange(min=1), metavar="N", default=3, show_default=True, help="Trainings: seeds 0 to N-1."
)
@click.option("--vary", metavar="KEY=V1,V2,...", help="Compare values of a setting, such as loader.repeats=1,2,4.")
@click.option(
    "--minutes", type=click.FloatRange(min=0, min_open=True), metavar="M",
    help="Train for as long instead, at a constant learning rate.",
)  # fmt: skip
@click.option("--torch", is_flag=True, help="Train the same in PyTorch too, on the CPU.")
@click.option(
    "--runs", type=FILE, metavar="FOLDER", help="Keep the run folders there; a study that is started again goes on."
)
@json_option
@click.option("--plot", type=FILE, metavar="FILE", help="Draw the learning curves (.png or .svg).")
def accuracy(
    data: Path | None, config: str | None, overrides: tuple[str, ...], seeds: int, vary: str | None,
    minutes: float | None, torch: bool, runs: Path | None, json_file: Path | None, plot: Path | None,
) -> None:  # fmt: skip
    """What a training reaches, with several seeds.

    Values of a setting, or the same training in PyTorch, stand beside each other seed by seed. Two are told apart where
    the ranges of their seeds do not overlap.
    """
    from bench.studies.accuracy import AccuracySettings, measure_accuracy
    from r3d_fast.config.yaml_files import config_files

    output = Output(json_file, plot, inputs=[] if config is None else config_files(config))
    settings = AccuracySettings(config, overrides, data, seeds, vary, minutes, torch, runs)
    report = measure_accuracy(settings, published_command(data), tell, output.keep)
    output.show(report)


@studies.command()
@click.option(
    "--kills", type=click.IntRange(min=1), metavar="N", default=10, show_default=True, help="How often a run is killed."
)
@click.option(
    "--seed", type=int, metavar="N", default=0, show_default=True, help="Of the moments at which it is killed."
)
@click.option(
    "--steps",
    type=click.IntRange(min=2),
    metavar="N",
    default=5,
    show_default=True,
    help="Steps timed with, and without.",
)
@click.option(
    "--batch-size", type=click.IntRange(min=1), metavar="N", default=8, show_default=True, help="Clips of a timed step."
)
@override_option
@click.option("--device", type=DEVICE, default="cpu", show_default=True, help="Where the timed steps are taken.")
@json_option
def resume(
    kills: int, seed: int, steps: int, batch_size: int, overrides: tuple[str, ...], device: str, json_file: Path | None
) -> None:
    """A run that is killed again and again, beside one undisturbed.

    A small run is killed (-9) at random moments and goes on each time; in the end it is compared with one that nobody
    disturbed. Then steps of the reference recipe are timed, with and without a checkpoint after each.
    """
    from bench.studies.resume import measure_resume

    output = Output(json_file)
    overrides = (*overrides, f"loader.batch_size={batch_size}", f"train.device={device}")
    report = measure_resume(kills, seed, steps, overrides, command=published_command(), say=tell)
    output.show(report)
