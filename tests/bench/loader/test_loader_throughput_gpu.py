"""What `bench loader throughput --device gpu` measures, everything but the GPU itself being real."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
from clips import write_classes

from bench.gpu.decisions import decoder, threads
from bench.gpu.findings import Found
from bench.loader import contenders, handover
from bench.loader import loader_throughput as loader
from bench.loader.handover import wait_for
from bench.measuring.gpu_use import FIGURES
from bench.reporting.figures import Figures
from bench.reporting.results import ThroughputReport, load, save
from bench.reporting.tables import tables
from pipelines.errors import EnvironmentProblem
from pipelines.machine.nvidia import probe_driver

REPO = Path(__file__).resolve().parents[3]
NO_DRIVER = probe_driver().problem == "libcuda.so.1 is not there"


@pytest.fixture
def pretended(monkeypatch: pytest.MonkeyPatch) -> None:
    """A GPU whose clips come from the CPU's loader: everything but the GPU itself is the real thing."""
    make = handover.make_loader

    def make_loader(*arguments: Any, device: str = "cpu", **options: Any) -> Any:
        assert device in ("cpu", "gpu")
        if arguments[3].decoder == "dali" and device == "gpu" and arguments[0].root.name == "none":
            raise EnvironmentProblem("no NVDEC here")
        return make(*arguments, **options)

    monkeypatch.setattr(contenders, "make_loader", make_loader)
    monkeypatch.setattr(contenders, "wait_for", lambda clips: replace(wait_for(clips), gpu=True))
    monkeypatch.setattr(loader, "require_gpu", lambda: None)
    monkeypatch.setattr(loader, "first_batch_seconds", lambda *_: {"median": 1.0, "low": 1.0, "high": 1.0})


@pytest.mark.usefixtures("pretended")
def test_ways_to_decode_stand_beside_each_other_and_what_fails_is_left_out(mjpeg_videos: Path, tmp_path: Path) -> None:
    settings = loader.LoaderSettings(
        mjpeg_videos, samplings=("segments",), decoders=("dali", "pyav"), device="gpu", rounds=5, batches=1,
        batch_size=3, num_frames=4, size_px=32,
    )  # fmt: skip
    said: list[str] = []
    measured = loader.measure_loader(settings, "bench", said.append)
    (only,) = measured.runs
    nvdec, cpu = "r3d-fast, NVDEC", "r3d-fast, CPU decode, GPU augment"
    assert only.names == ["r3d-fast", nvdec, cpu, "decode only (ceiling)"]
    assert measured.settings["device"] == "gpu"
    for name in only.names[:3]:
        use = only[name].gpu
        assert use is not None
        assert set(use.figures) | set(use.absent) == set(FIGURES)
        assert re.fullmatch(
            r"identical|same clips \(mean difference (up to \d\.\d|below 0\.1) of 255\)", only[name].frames
        )
    assert only["decode only (ceiling)"].gpu is None
    save(measured, tmp_path / "a.json")
    assert load(tmp_path / "a.json") == measured
    assert nvdec in tables([measured])

    mjpeg_videos.rename(none := mjpeg_videos.with_name("none"))
    try:
        measured = loader.measure_loader(replace(settings, data=none), "bench", said.append)
    finally:
        none.rename(mjpeg_videos)
    assert measured.runs[0].names == ["r3d-fast", cpu, "decode only (ceiling)"]
    assert measured.extra["not measured"] == {f"segments, 1 worker: {nvdec}": "no NVDEC here"}
    assert f"not measured, segments, 1 worker: {nvdec}: no NVDEC here" in tables([measured])


@pytest.mark.usefixtures("pretended")
def test_turns_on_a_gpu_last_two_seconds_at_batch_64(mjpeg_videos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each contender's batches are counted by its own speed; what is measured is kept after each round."""
    asked: list[tuple[float, str]] = []

    def lasting(seconds: float, contender: contenders.ClipLoaderContender) -> int:
        asked.append((seconds, contender.name))
        return 1

    monkeypatch.setattr(loader, "batches_lasting", lasting)
    kept: list[ThroughputReport] = []
    settings = loader.LoaderSettings(
        mjpeg_videos, samplings=("segments",), decoders=("dali",), threads=(1, 2), device="gpu", rounds=5, batch_size=3,
        num_frames=4, size_px=32,
    )  # fmt: skip
    assert replace(settings, batch_size=None).clips_a_batch == 64
    assert replace(settings, batch_size=None, device="cpu").clips_a_batch == 16
    measured = loader.measure_loader(settings, "bench", keep=kept.append)
    names = ["r3d-fast", "r3d-fast, NVDEC, 1 thread", "r3d-fast, NVDEC, 2 threads", "decode only (ceiling)"]
    assert measured.runs[0].names == names
    assert asked == [(2.0, name) for name in names]
    assert measured.settings["seconds_a_turn"] == 2.0
    assert "batches_a_turn" not in measured.settings
    assert [report.runs[0].rounds for report in kept] == [1, 2, 3, 4, 5]
    # What `bench gpu` makes of the file, in which every decoder is the CPU's.
    found = Found({}, results={"loader_64": json.loads(json.dumps(asdict(measured)))})
    assert decoder(found).choice in ("dali, 1 thread", "dali, 2 threads")
    assert any(line.startswith("auto ") and "it chose pyav (no GPU)" in line for line in decoder(found).figures)
    assert threads(found).choice in ("1 thread", "2 threads")


def test_by_default_all_three_ways_are_measured(mjpeg_videos: Path) -> None:
    work = contenders.Work(None, None, None, 1, 4)  # type: ignore[arg-type]
    variants = loader._variants(loader.LoaderSettings(device="gpu", repeats=(2,)), work)
    assert [(variant.name, variant.options, variant.exact) for variant in variants] == [
        ("r3d-fast", {}, False),
        ("r3d-fast, NVDEC", {"decoder": "dali"}, False),
        ("r3d-fast, hybrid", {"decoder": "hybrid"}, False),
        ("r3d-fast, CPU decode, GPU augment", {"decoder": "pyav"}, False),
        ("r3d-fast, 2 repeats", {"repeats": 2}, False),
    ]


@pytest.mark.skipif(not NO_DRIVER, reason="this machine has a driver")
@pytest.mark.parametrize("group", ["loader", "train"])
def test_without_a_gpu_it_is_one_line_and_exit_code_4(group: str) -> None:
    command = [sys.executable, "-W", "error", "-m", "bench.cli", group, "throughput", "--device", "gpu"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False, cwd=REPO)
    assert (done.returncode, done.stdout) == (4, "")
    assert re.fullmatch(r"bench: --device gpu: libcuda\.so\.1 is not there; .+\n", done.stderr), done.stderr


@pytest.mark.gpu
def test_a_gpu_is_measured(gpu: str, tmp_path: Path) -> None:
    write_classes(tmp_path / "videos", 8, num_frames=40)
    measured = loader.measure_loader(
        loader.LoaderSettings(
            tmp_path / "videos", samplings=("segments",), device="gpu", rounds=5, batches=2, batch_size=4
        ),
        "bench",
    )
    only = measured.runs[0]
    cpu = "r3d-fast, CPU decode, GPU augment"
    assert {"r3d-fast", cpu, "decode only (ceiling)"} <= set(only.names)
    left = measured.extra.get("not measured", {})
    for name in ("r3d-fast, NVDEC", "r3d-fast, hybrid"):
        assert name in only.names or any(key.endswith(name) for key in left)
    for figures in only.figures[:-1]:
        assert isinstance(figures, Figures)
        assert figures.frames.startswith(("identical", "same clips"))
        assert figures.gpu is not None
        assert "card_memory_mib" in figures.gpu.figures
