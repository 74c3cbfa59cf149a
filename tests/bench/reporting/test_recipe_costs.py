from __future__ import annotations

import re
from itertools import chain

import pytest

from bench.reporting.recipe_costs import (
    DATA_SETS,
    FROM_SCRATCH,
    KINETICS_MEANS,
    OF_64_FRAMES,
    DataSet,
    recipe_cost,
    recipe_table,
)
from pipelines.errors import UsageError
from r3d_fast.config.config import load_config
from r3d_fast.config.yaml_files import shipped_configs
from r3d_fast.models.cost import summarise

TEN = DataSet(train=10, evaluated=4)
KINDS = ("scratch", "kinetics", "finetune")


def rows(table: str) -> dict[str, list[str]]:
    """The cells of each row of a table, by the name of its config."""
    return {cells[0]: cells[1:] for cells in (re.split(r" *\| *", line)[1:-1] for line in table.splitlines()[2:])}


def test_the_reference_run_by_hand() -> None:
    """9,537 videos are 149 batches of 64; each of 25 epochs ends with one clip of each of 3,783 videos."""
    cost = recipe_cost(load_config("ucf101_r3d18"), DATA_SETS["ucf101"])
    assert cost.passes == 25 * (3 * 149 * 64 + 3783)
    assert cost.hours == pytest.approx(25 * (149 * 64 / 156 + 3783 / (156 * 3)) / 3600)
    assert cost.memory_gib == pytest.approx((3 * 33_615_781 * 4 / 2**20 * (1 - 8) + 787 * 8) / 1024, abs=0.01)
    assert not cost.at_most


def test_evaluations_and_repeats_count_as_often_as_they_are_made() -> None:
    small = ["loader.batch_size=4", "train.epochs=6", "loader.repeats=3", "train.eval_every_epochs=4"]
    config = load_config("ucf101_r3d18", [*small, "eval.views=2", "eval.crops=3"])
    training, evaluation = 3 * 28 * 6, 4 * 2 * 3  # 30 clips are 7 batches of 4; epochs 4 and 6 end with an evaluation
    assert recipe_cost(config, TEN).passes == training + 2 * evaluation


def test_longer_clips_and_other_models_cost_what_the_models_do() -> None:
    plain, long, deep = (
        recipe_cost(load_config("ucf101_r3d18", ["loader.batch_size=8", *more]), TEN)
        for more in ([], ["clip.num_frames=64"], ["model.name=r3d50", "model.shortcut=A"])
    )
    assert long.gmac == summarise("r3d18_reference", frames=64).gmac > 3.9 * plain.gmac
    assert deep.gmac == summarise("r3d50", shortcut="A").gmac
    assert deep.hours / plain.hours == pytest.approx(deep.gmac / plain.gmac)
    assert long.memory_gib == pytest.approx(summarise("r3d18_reference", frames=64).memory_mib / 1024)


def test_a_frozen_network_costs_no_more_than_is_said() -> None:
    assert recipe_cost(load_config("ucf101_r3d18", ["init.freeze_until=layer4"]), TEN).at_most


def test_an_evaluation_that_depends_on_the_lengths_of_videos_is_refused() -> None:
    config = load_config("ucf101_r3d18_paper", ["eval.views=paper"])
    with pytest.raises(UsageError, match=r"eval\.views: paper: .*expected a number"):
        recipe_cost(config, TEN)


def test_each_config_of_a_data_set_has_one_row() -> None:
    tables = [rows(recipe_table(kind, {})) for kind in KINDS]
    found = list(chain.from_iterable(tables))
    of_no_paper = {"demo", "folder_r3d18", "folder_finetune"}
    assert sorted(found) == sorted(f"`{name}`" for name in set(shipped_configs()) - of_no_paper)
    frozen = {name: cells[-2].startswith("up to") for name, cells in chain.from_iterable(t.items() for t in tables)}
    assert {name for name, up_to in frozen.items() if up_to} == set(tables[2])


def test_a_row_has_its_published_figure_or_a_dash() -> None:
    cells = rows(recipe_table("scratch", {"ucf101_r3d18": 43.98}))
    assert cells["`ucf101_r3d18`"][:4] == ["43.98", "8.38", "9,537", "25"]
    assert {row[0] for name, row in cells.items() if name != "`ucf101_r3d18`"} == {"-"}


def test_published_figures_are_of_configs_that_are_shipped() -> None:
    assert {*KINETICS_MEANS, *FROM_SCRATCH, *OF_64_FRAMES} <= set(shipped_configs())
