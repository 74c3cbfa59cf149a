"""`bench loader throughput` and `bench loader soak`."""

from __future__ import annotations

from pathlib import Path

import click

from bench.commands.options import (
    DEVICE,
    data_option,
    json_option,
    names,
    numbers,
    plot_option,
    rounds_option,
    selection_option,
    videos_option,
)
from bench.commands.output import Output, published_command
from r3d_fast.console import tell


@click.group()
def loader() -> None:
    """The clip loader."""


@loader.command()
@data_option
@videos_option
@selection_option
@click.option(
    "--sampling", type=click.Choice(["segments", "consecutive", "both"]), default="both", show_default=True,
    help="Which frames make a clip.",
)  # fmt: skip
@click.option("--workers", metavar="N[,N...]", help="Decoding processes; several: one run each (default: usable CPUs).")
@click.option(
    "--peers", is_flag=False, flag_value="all", metavar="[NAME,...]",
    help="Measure the loaders that a user would pick instead too: all that are installed, or those named.",
)  # fmt: skip
@click.option(
    "--device", type=DEVICE, default="cpu", show_default=True,
    help="Where batches go; gpu: NVDEC, hybrid, and CPU decoding with GPU augmenting stand beside each other.",
)  # fmt: skip
@click.option("--decoder", metavar="NAME[,NAME...]", help="Measure these values of loader.decoder too.")
@click.option("--repeats", metavar="K[,K...]", help="Measure loader.repeats K too: K clips from each decode pass.")
@click.option("--threads", metavar="N[,N...]", help="On a GPU: DALI's threads where NVDEC decodes alone, one run each.")
@rounds_option("Turns of each contender")
@click.option(
    "--batches", type=click.IntRange(min=1), metavar="N", help="Batches timed in a turn (default: 12; on a GPU 2 s)."
)
@click.option("--batch-size", type=click.IntRange(min=1), metavar="N", help="Clips a batch (default: 16; on a GPU 64).")
@json_option
@plot_option
def throughput(
    data: Path | None, videos: int | None, selection: Path | None, sampling: str, workers: str | None,
    peers: str | None, device: str, decoder: str | None, repeats: str | None, threads: str | None, rounds: int,
    batches: int | None, batch_size: int | None, json_file: Path | None, plot: Path | None,
) -> None:  # fmt: skip
    """Clips per second of the loader.

    Beside them stand its stages, its ceiling and, with --peers, the loaders that a user would pick instead.
    """
    from bench.loader.loader_throughput import DECODERS, LoaderSettings, measure_loader
    from bench.loader.peers import find_peers
    from pipelines.machine.cpus import usable_cpus

    asked = None if peers in (None, "all") else [peer.strip() for peer in str(peers).split(",")]
    usable, missing = find_peers(asked) if peers else ([], {})
    settings = LoaderSettings(
        data=data,
        videos=videos,
        selection=selection,
        samplings=("segments", "consecutive") if sampling == "both" else (sampling,),
        workers=numbers("--workers", workers) if workers else (usable_cpus(),),
        peers=tuple(usable),
        missing=tuple(missing.items()),
        repeats=numbers("--repeats", repeats) if repeats else (),
        decoders=names("--decoder", decoder, DECODERS) if decoder else (),
        threads=numbers("--threads", threads) if threads else (),
        device=device,
        rounds=rounds,
        batches=batches,
        batch_size=batch_size,
    )
    output = Output(json_file, plot)
    report = measure_loader(settings, published_command(data), tell, output.keep)
    output.show(report)


@loader.command()
@data_option
@click.option(
    "--clips", type=click.IntRange(min=1000), metavar="N", default=20000, show_default=True, help="Clips to load."
)
@click.option("--workers", type=click.IntRange(min=1), metavar="N", help="Decoding processes (default: usable CPUs).")
@json_option
def soak(data: Path | None, clips: int, workers: int | None, json_file: Path | None) -> None:
    """Memory and open files over thousands of clips.

    Says how much each process grows by, in MB for 1,000 clips.
    """
    from bench.loader.soak import measure_soak
    from pipelines.machine.cpus import usable_cpus

    output = Output(json_file)
    report = measure_soak(data, clips, workers or usable_cpus(), published_command(data), tell)
    output.show(report)
