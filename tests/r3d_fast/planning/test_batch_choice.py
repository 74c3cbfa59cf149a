"""Which batches a run gets, by what its model takes and what is free, and which it refuses."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import tiny

from pipelines.batches import EpochBatches
from pipelines.errors import EnvironmentProblem
from pipelines.index.folds import Fold
from pipelines.index.video_index import VideoIndex
from pipelines.machine.memory import FreeMemory
from r3d_fast.cli import cli, run_cli
from r3d_fast.config.config import load_config
from r3d_fast.planning import batch_choice
from r3d_fast.planning.batch_choice import choose_batches, kept_batches, rate_note
from r3d_fast.planning.trial import Line, Measured

GIB = 2**30
MEASURED = Measured(Line(GIB, GIB / 4), Line(GIB, GIB / 16), Line(3 * GIB, GIB / 4), Line(0.1, 0.2), Line(0, 0.1), 5.0)
AUTO = ("loader.batch_size=auto", "eval.batch_size=auto", "optimizer.lr_for_batch=64")


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Any:
    """A function that sets the memory of this machine; its model takes what MEASURED says."""
    monkeypatch.setattr(batch_choice, "measure", lambda *arguments: MEASURED)

    def set_free(free: float, addresses: float | None = None) -> None:
        monkeypatch.setattr(batch_choice, "free_memory", lambda: FreeMemory(int(free * GIB), "free RAM"))
        limit = None if addresses is None else int(addresses * GIB)
        monkeypatch.setattr(batch_choice, "address_limit", lambda: limit)

    return set_free


@pytest.mark.parametrize(
    ("free", "addresses", "more", "batch", "reason"),
    [
        (200, None, ("loader.repeats=40", "optimizer.lr_for_batch=16"), 16, "the learning rate is meant for"),
        (200, None, ("loader.repeats=40", "train.accumulate=4"), 16, "as many as the learning rate is meant for"),
        (200, None, ("loader.repeats=40",), 16, "there are 24 videos"),
        (200, None, (), 8, "for enough steps with 24 videos"),
        (6.2, None, (), 4, "more would take over 60% of free RAM, 6.2 GiB"),
        (200, 7.0, (), 4, "more would take the address space that ulimit -v leaves"),
    ],
)  # fmt: skip
def test_auto_is_the_largest_batch_that_recipe_data_and_memory_allow(
    index: VideoIndex,
    machine: Any,
    free: float,
    addresses: float | None,
    more: tuple[str, ...],
    batch: int,
    reason: str,
) -> None:  # fmt: skip
    machine(free, addresses)
    chosen = choose_batches(tiny.tiny_config(index, *AUTO, *more), index, "cpu")
    assert (chosen.config.loader.batch_size, chosen.config.eval.batch_size) == (batch, 8)
    assert reason in chosen.reason
    assert chosen.notes["loader.batch_size"] == chosen.reason
    assert chosen.need_bytes is not None
    assert chosen.need_bytes <= 0.6 * free * GIB


def test_the_plan_names_the_limit_that_binds(index: VideoIndex, machine: Any) -> None:
    config = tiny.tiny_config(index, *AUTO)
    machine(200, 7.0)
    chosen = choose_batches(config, index, "cpu")
    assert (chosen.limit, chosen.free_bytes) == ("addresses, by ulimit -v", 7 * GIB)
    assert chosen.need_bytes is not None
    assert 6 * GIB < chosen.need_bytes < 7 * GIB
    machine(6.2, 100.0)
    assert choose_batches(config, index, "cpu").limit == "free RAM"


def test_the_note_at_the_rate_says_what_it_is_scaled_to(index: VideoIndex) -> None:
    config = tiny.tiny_config(index, *AUTO, "optimizer.lr=0.01", "train.accumulate=2")
    assert rate_note(config, 4) == {"optimizer.lr": "0.00125 in steps of 8 clips, by lr_for_batch"}
    assert rate_note(config, 32) == {}


@pytest.mark.parametrize("size", ["auto", "8"])
def test_the_rate_in_the_config_the_plan_and_the_steps_is_one(index: VideoIndex, tmp_path: Path, size: str) -> None:
    run = tmp_path / "run"
    setup = tiny.overrides(
        index, *AUTO, f"loader.batch_size={size}", "optimizer.lr=0.01", "train.report=false", "train.epochs=1",
        "loader.last_batch=spread", "loader.repeats=1", "schedule.kind=constant", "schedule.warmup_epochs=0",
        f"data.train_split={Fold(1, 8, is_rest=True)}", f"data.eval_split={Fold(1, 8)}",
    )  # fmt: skip
    videos = len(index.columns(str(Fold(1, 8, is_rest=True))))
    assert run_cli(cli, ["train", "-c", "demo", "--run", str(run), *(f"-o{value}" for value in setup)], "r3d-fast") == 0
    largest = EpochBatches(videos, 8, "spread").largest
    assert largest < 8
    rate = 0.01 * largest / 64
    text = (run / "config.yaml").read_text(encoding="utf-8")
    assert f"  lr: 0.01  # {rate:.6g} in steps of {largest} clips, by lr_for_batch\n" in text
    assert json.loads((run / "plan.json").read_text())["rate"] == pytest.approx(rate)
    steps = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert {round(record["lr"], 9) for record in steps if "lr" in record} == {round(rate, 9)}


def test_ranks_share_the_batch_and_the_memory(index: VideoIndex, machine: Any) -> None:
    machine(200)
    chosen = choose_batches(tiny.tiny_config(index, *AUTO, "loader.repeats=40"), index, "cpu", ranks=4, local=4)
    assert (chosen.config.loader.batch_size, chosen.config.eval.batch_size) == (16, 32)
    assert chosen.free_bytes == 50 * GIB


def test_a_batch_that_is_too_large_is_refused_with_the_one_that_fits(index: VideoIndex, machine: Any) -> None:
    machine(8)
    config = load_config("ucf101_r3d18", [f"data.root={index.root}", "loader.batch_size=48", "loader.workers=1"])
    with pytest.raises(EnvironmentProblem) as caught:
        choose_batches(config, index, "cpu")
    assert caught.value.exit_code == 4
    assert str(caught.value).startswith("a batch of 48 would take 1")
    assert str(caught.value).endswith(
        "GiB, and 8.0 GiB are free (free RAM); a batch of 8 fits: -o loader.batch_size=8 -o optimizer.lr=0.001667 "
        "(the rate in proportion)"
    )


def test_a_run_that_goes_on_keeps_its_batches(index: VideoIndex) -> None:
    given, before = tiny.tiny_config(index, *AUTO), tiny.tiny_config(index, "loader.batch_size=4", "eval.batch_size=2")
    kept = kept_batches(given, before)
    assert kept is not None
    assert (kept.config.loader.batch_size, kept.config.eval.batch_size) == (4, 2)
    assert kept_batches(given, given) is None


def test_a_run_says_in_its_config_what_was_auto_and_goes_on_with_it(index: VideoIndex, tmp_path: Path) -> None:
    run, setup = tmp_path / "run", [f"-o{value}" for value in tiny.overrides(index, *AUTO, "train.report=false")]
    start = ["train", "-c", "demo", "--run", str(run), *setup]
    assert run_cli(cli, [*start, "-otrain.epochs=2"], "r3d-fast") == 0
    first = (run / "config.yaml").read_text(encoding="utf-8")
    assert "  batch_size: 8  # auto: small, for enough steps with 24 videos\n" in first
    assert "  batch_size: 8  # auto\n" in first
    assert run_cli(cli, [*start, "-otrain.epochs=3", "--resume", "auto"], "r3d-fast") == 0
    assert (run / "config.yaml").read_text(encoding="utf-8") == first.replace("  epochs: 2\n", "  epochs: 3\n")


def test_a_batch_that_no_memory_holds_leaves_no_run_behind(
    index: VideoIndex, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    setup = [f"-o{value}" for value in tiny.overrides(index, "loader.batch_size=65536", "augment.size_px=256")]
    assert run_cli(cli, ["train", "-c", "demo", "--run", str(run), *setup], "r3d-fast") == 4
    last = capsys.readouterr().err.splitlines()[-1]
    assert last.startswith("r3d-fast: a batch of 65536 would take ")
    assert "-o loader.batch_size=" in last
    assert not run.exists()
