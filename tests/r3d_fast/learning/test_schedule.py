from __future__ import annotations

import json
import math
import random
import subprocess
import sys
from importlib.util import find_spec
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError

from pipelines.errors import UsageError
from r3d_fast.config.config import load_config
from r3d_fast.config.sections import ScheduleSpec
from r3d_fast.learning.schedule import Plateau, learning_rate

STEPS = 149  # an epoch of the reference run: 9,537 videos, batches of 64, the incomplete one dropped
REFERENCE = ScheduleSpec(kind="piecewise", milestones_epochs=(15, 20))


def rate(step: int, spec: ScheduleSpec, base: float = 0.01, steps_per_epoch: int = STEPS, epochs: int = 25) -> float:
    return learning_rate(step, base=base, steps_per_epoch=steps_per_epoch, epochs=epochs, spec=spec)


# Epochs count from 1: .01 for 1-15, .001 for 16-20, .0001 for 21-25.
@pytest.mark.parametrize(
    ("epoch", "expected"), [(1, 1e-2), (2, 1e-2), (15, 1e-2), (16, 1e-3), (20, 1e-3), (21, 1e-4), (25, 1e-4)]
)
def test_reference_recipe_at_the_first_and_last_step_of_an_epoch(epoch: int, expected: float) -> None:
    assert rate((epoch - 1) * STEPS, REFERENCE) == pytest.approx(expected, rel=1e-12)
    assert rate(epoch * STEPS - 1, REFERENCE) == pytest.approx(expected, rel=1e-12)


def test_milestones_in_parts_of_an_epoch_fall_on_the_nearest_step() -> None:
    spec = ScheduleSpec(kind="piecewise", milestones_epochs=(0.7, 1.26), gamma=0.5)
    rates = [rate(s, spec, base=1.0, steps_per_epoch=10, epochs=2) for s in range(20)]
    assert rates == [1.0] * 7 + [0.5] * 6 + [0.25] * 7  # 0.7 * 10 is above 7 in floats


def test_constant_is_the_default_and_stays() -> None:
    assert {rate(s, ScheduleSpec()) for s in (0, 1, 1000, 25 * STEPS)} == {0.01}


def test_cosine_starts_at_base_halves_and_ends_near_final() -> None:
    spec = ScheduleSpec(kind="cosine", final=0.1)
    total = 25 * STEPS
    rates = [rate(s, spec, base=1.0) for s in range(total + 1)]
    assert rates[0] == 1.0
    assert rates[-1] == pytest.approx(0.1)
    assert rate(10 * total, spec, base=1.0) == pytest.approx(0.1)
    assert all(a > b for a, b in pairwise(rates))
    assert rate(50, spec, base=1.0, steps_per_epoch=100, epochs=1) == pytest.approx(0.55)
    quarter = 0.1 + 0.9 * (1 + math.sqrt(0.5)) / 2
    assert rate(25, spec, base=1.0, steps_per_epoch=100, epochs=1) == pytest.approx(quarter)


def test_no_step_of_training_has_a_rate_of_zero_without_warmup() -> None:
    assert rate(25 * STEPS - 1, ScheduleSpec(kind="cosine")) > 0.0


def test_warmup_rises_in_a_line_to_the_full_rate() -> None:
    spec = ScheduleSpec(warmup_epochs=0.5, warmup_start=0.2)
    rates = [rate(s, spec, base=2.0, steps_per_epoch=8, epochs=1) for s in range(8)]
    assert rates == pytest.approx([0.4, 0.8, 1.2, 1.6, 2.0, 2.0, 2.0, 2.0])


def test_cosine_begins_where_the_warmup_ends() -> None:
    spec = ScheduleSpec(kind="cosine", warmup_epochs=1)
    rates = [rate(s, spec, base=1.0, steps_per_epoch=10, epochs=3) for s in range(30)]
    assert rates[:11] == pytest.approx([s / 10 for s in range(11)])
    assert rates[20] == pytest.approx(0.5)
    assert max(rates) == rates[10] == 1.0


def test_warmup_does_not_move_milestones() -> None:
    spec = ScheduleSpec(kind="piecewise", milestones_epochs=(2,), warmup_epochs=1)
    assert rate(19, spec, base=1.0, steps_per_epoch=10) == 1.0
    assert rate(20, spec, base=1.0, steps_per_epoch=10) == pytest.approx(0.1)


def plateau_falls(figures: list[float], spec: ScheduleSpec) -> list[int]:
    plateau, falls = Plateau(), []
    for figure in figures:
        plateau = plateau.after(figure, spec)
        falls.append(plateau.falls)
    return falls


@pytest.mark.parametrize("watch", ["loss", "top1"])
def test_a_plateau_falls_when_paddles_own_does(watch: Any) -> None:
    from paddle.optimizer.lr import ReduceOnPlateau

    rng = random.Random(1)
    figures = [max(0.01, 1.0 - 0.05 * i if i < 12 else 0.5) + rng.uniform(0, 0.05) for i in range(60)]
    figures = figures if watch == "loss" else [1.2 - figure for figure in figures]
    spec = ScheduleSpec(kind="plateau", patience_evals=3, threshold=0.01, watch=watch, gamma=0.5)
    paddles = ReduceOnPlateau(
        1.0, mode="min" if watch == "loss" else "max", factor=0.5, patience=3, threshold=0.01, epsilon=0.0
    )
    expected = []
    for figure in figures:
        paddles.step(figure)
        expected.append(round(-math.log2(paddles.last_lr)))
    assert plateau_falls(figures, spec) == expected
    assert expected[-1] >= 4


def test_a_plateau_goes_on_from_what_a_checkpoint_holds_of_it() -> None:
    spec = ScheduleSpec(kind="plateau", patience_evals=1)
    before = Plateau().after(1.0, spec).after(2.0, spec)
    assert before == Plateau(1.0, 1, 0)
    assert Plateau(**json.loads(json.dumps(vars(before)))).after(1.0, spec) == Plateau(1.0, 0, 1)


def test_a_figure_that_is_no_number_is_no_better() -> None:
    assert plateau_falls([math.nan, math.nan, 1.0, math.nan], ScheduleSpec(kind="plateau", patience_evals=0)) == [
        1, 2, 2, 3,
    ]  # fmt: skip


def test_a_plateau_scales_the_rate_by_each_fall_down_to_final_and_warms_up() -> None:
    spec = ScheduleSpec(kind="plateau", gamma=0.1, final=0.005, warmup_epochs=1)
    rates = [
        learning_rate(step, base=1.0, steps_per_epoch=4, epochs=3, spec=spec, falls=falls)
        for step, falls in ((2, 0), (4, 0), (5, 1), (6, 2), (7, 3), (7, 9), (2, 1))
    ]
    assert rates == pytest.approx([0.5, 1.0, 0.1, 0.01, 0.005, 0.005, 0.05])


def test_other_kinds_do_not_fall_at_evaluations() -> None:
    assert Plateau().after(5.0, ScheduleSpec()) == Plateau()
    assert rate(3, REFERENCE) == learning_rate(3, base=0.01, steps_per_epoch=STEPS, epochs=25, spec=REFERENCE, falls=2)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"kind": "piecewise"}, "milestones_epochs is empty"),
        ({"kind": "piecewise", "milestones_epochs": (20, 15)}, r"milestones_epochs \[20.0, 15.0\]: expected"),
        ({"kind": "piecewise", "milestones_epochs": (15, 15)}, "each above the one before"),
        ({"kind": "piecewise", "milestones_epochs": (0, 15)}, "expected numbers > 0"),
        ({"kind": "piecewise", "milestones_epochs": (5,), "gamma": 0}, "greater than 0"),
        ({"kind": "piecewise", "milestones_epochs": (5,), "final": 0.1}, "final 0.1 has no meaning"),
        ({"kind": "cosine", "milestones_epochs": (5,)}, "have no meaning for kind 'cosine'"),
        ({"kind": "step"}, "'piecewise', 'cosine', 'plateau' or 'constant'"),
        ({"kind": "cosine", "patience_evals": 3}, "patience_evals 3 has no meaning for kind 'cosine'; expected 10"),
        ({"threshold": 0.1}, "threshold 0.1 has no meaning for kind 'constant'"),
        ({"warmup_epochs": -1}, "greater than or equal to 0"),
        ({"warmup_start": 0.5}, "no meaning without warmup_epochs"),
        ({"warmup_epochs": 1, "warmup_start": 1.5}, "less than or equal to 1"),
        ({"kind": "cosine", "final": float("nan")}, "finite"),
        ({"milestones": (5,)}, "Extra inputs"),
    ],
)
def test_wrong_specs_are_refused(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        ScheduleSpec(**fields)


@pytest.mark.parametrize(
    ("step", "options"),
    [(-1, {}), (0, {"base": 0.0}), (0, {"base": math.inf}), (0, {"steps_per_epoch": 0}), (0, {"epochs": 0})],
)
def test_wrong_arguments_are_refused(step: int, options: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match="expected step >= 0"):
        rate(step, REFERENCE, **options)


def test_a_warmup_as_long_as_training_is_refused() -> None:
    with pytest.raises(UsageError, match="expected a warmup shorter than training"):
        rate(0, ScheduleSpec(warmup_epochs=3), epochs=3)


def test_the_spec_is_frozen() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        REFERENCE.gamma = 0.5


def test_schedule_and_metrics_do_not_import_paddle() -> None:
    code = "import sys, r3d_fast.learning.schedule, r3d_fast.metrics; sys.exit('paddle' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


# ---- The paper's recipes, whose authors trained with PyTorch. `tests/golden/learning_rates.json` holds what PyTorch
# 2.13.0 gave; where PyTorch is installed it is asked again.

GOLDEN = json.loads((Path(__file__).parents[2] / "golden" / "learning_rates.json").read_text(encoding="utf-8"))
needs_torch = pytest.mark.skipif(find_spec("torch") is None, reason="PyTorch is not installed: pip install torch")


def losses() -> list[float]:
    """A loss for each of 200 epochs: falling in three slopes, with small waves, so that it stays flat several times."""
    slopes = [4.0 * 0.9 ** min(epoch, 30) + 0.5 * 0.9 ** max(0, min(epoch - 90, 20)) for epoch in range(200)]
    return [round(slope + 0.01 * ((7 * epoch) % 13) / 13, 6) for epoch, slope in enumerate(slopes)]


def test_the_plateau_of_the_paper_falls_where_pytorchs_does() -> None:
    config = load_config("ucf101_r3d18_paper")
    plateau, rates = Plateau(), []
    for epoch, loss in enumerate(losses()):
        rates.append(rate_of_epoch(epoch, config.schedule, config.optimizer.lr, config.train.epochs, plateau.falls))
        plateau = plateau.after(loss, config.schedule)
    falls = [pair for pair in zip(rates, GOLDEN["plateau"], strict=True) if pair[1] > 1e-7]
    assert len(set(falls)) >= 4
    assert [ours for ours, _ in falls] == pytest.approx([theirs for _, theirs in falls], rel=1e-9)
    assert max(rates[len(falls) :]) < 2e-7  # PyTorch's eps of 1e-8 keeps rates that are nothing already


def test_the_milestones_of_the_later_recipe_are_pytorchs() -> None:
    config = load_config("kinetics700_r3d50_master")
    rates = [rate_of_epoch(epoch, config.schedule, config.optimizer.lr, config.train.epochs) for epoch in range(200)]
    assert rates == pytest.approx(GOLDEN["multistep"], rel=1e-9)
    assert [rates[epoch] for epoch in (49, 50, 100, 150)] == pytest.approx([0.1, 0.01, 0.001, 0.0001])


def rate_of_epoch(epoch: int, spec: ScheduleSpec, base: float, epochs: int, falls: int = 0) -> float:
    return learning_rate(3 * epoch, base=base, steps_per_epoch=3, epochs=epochs, spec=spec, falls=falls)


@needs_torch
def test_the_golden_rates_are_what_pytorch_gives() -> None:
    import torch

    def rates(base: float, make: Any) -> list[float]:
        optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=base)
        schedule, found = make(optimizer), []
        for loss in losses():
            found.append(optimizer.param_groups[0]["lr"])
            optimizer.step()
            schedule.step(*([loss] if isinstance(schedule, torch.optim.lr_scheduler.ReduceLROnPlateau) else []))
        return found

    of = torch.optim.lr_scheduler
    plateau = rates(0.01, lambda optimizer: of.ReduceLROnPlateau(optimizer, "min", patience=10))
    assert plateau == pytest.approx(GOLDEN["plateau"], rel=1e-9)
    multistep = rates(0.1, lambda optimizer: of.MultiStepLR(optimizer, [50, 100, 150]))
    assert multistep == pytest.approx(GOLDEN["multistep"], rel=1e-9)


def weights(rate: float, dampening: float, steps: int = 40) -> list[float]:
    """A weight after each step of SGD with momentum 0.9 on (w - 3)^2 / 2, as PyTorch computes it.

    PyTorch's first momentum is the gradient itself, not dampened.
    """
    weight, momentum, found = 0.0, None, []
    for _ in range(steps):
        gradient = weight - 3.0
        momentum = gradient if momentum is None else 0.9 * momentum + (1.0 - dampening) * gradient
        weight -= rate * momentum
        found.append(weight)
    return found


def test_a_tenth_of_the_rate_without_dampening_takes_the_same_steps_but_for_the_first_gradient() -> None:
    """With dampening the first gradient counts ten times as much; that fades with momentum."""
    damped, undamped = weights(1e-3, 0.9), weights(1e-4, 0.0)
    assert damped[0] == pytest.approx(10 * undamped[0])
    # Where gradients hardly change, the first one, -3, moves the weight by 9 more tenths of 0.9^k in step k.
    ahead = np.cumsum(9 * 1e-4 * 3.0 * 0.9 ** np.arange(40))
    assert np.array(damped) - undamped == pytest.approx(ahead, rel=0.03)
    # Its effect ends: later steps are as long.
    assert np.diff(damped)[-1] == pytest.approx(np.diff(undamped)[-1], rel=0.15)


@needs_torch
def test_that_is_what_pytorch_computes() -> None:
    import torch

    for rate, dampening in ((1e-3, 0.9), (1e-4, 0.0)):
        weight = torch.zeros(1, dtype=torch.float64, requires_grad=True)
        optimizer, found = torch.optim.SGD([weight], lr=rate, momentum=0.9, dampening=dampening), []
        for _ in range(40):
            optimizer.zero_grad()
            ((weight - 3.0) ** 2 / 2).sum().backward()
            optimizer.step()
            found.append(weight.item())
        assert found == pytest.approx(weights(rate, dampening), rel=1e-9)
