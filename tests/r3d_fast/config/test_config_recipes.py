"""Every config that is shipped trains: its model takes a step and is evaluated, small, on videos made here."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from pipelines.index.video_index import VideoIndex
from r3d_fast import load_config, train
from r3d_fast.config.config import Config, dump_config
from r3d_fast.config.yaml_files import shipped_configs
from r3d_fast.demo.videos import make_demo_dataset
from r3d_fast.weights.tensor_reader import read_tensors

SMALL = (
    "augment.size_px=16", "loader.batch_size=8", "loader.workers=0", "loader.threads=1", "train.epochs=1",
    "train.eval_every_epochs=1", "train.device=cpu", "train.log_to=[]", "data.train_split=train",
)  # fmt: skip
LAST_PART = ("backbone.layer4", "backbone.block4", "backbone.norm")


def pretrained_on(name: str) -> str | None:
    """The shipped config whose run gives the weights that config `name` starts from."""
    if not name.endswith("_finetune") or name == "folder_finetune":  # that one starts from weights of torchvision
        return None
    model = name.removesuffix("_finetune").partition("_")[2]
    return f"kinetics{700 if model.endswith('master') else 400}_{model}"


def slow_if_deep(names: list[str]) -> list[Any]:
    """`names` as parameters; tracing a network of hundreds of layers takes 10 s and more."""
    deep = ("r3d101", "r3d152", "200", "201")
    return [pytest.param(name, marks=pytest.mark.slow if any(d in name for d in deep) else ()) for name in names]


def without_data(name: str) -> str:
    """The values of a config, but for which videos it is about."""
    config = load_config(name)
    return dump_config(config.model_copy(update={"data": load_config("demo").data}))


DISTINCT = {without_data(name): name for name in sorted(shipped_configs(), reverse=True)}
FINETUNED = sorted(name for name in DISTINCT.values() if pretrained_on(name))
# A config that others start from is trained in their test.
ALONE = sorted(set(DISTINCT.values()) - {*FINETUNED, *map(pretrained_on, FINETUNED)})


@pytest.fixture(scope="module")
def halves(tmp_path_factory: pytest.TempPathFactory) -> list[VideoIndex]:
    """Two data sets of four motions each, with 8 videos to train on and 4 to test."""
    folder = tmp_path_factory.mktemp("halves")
    make_demo_dataset(folder / "all", videos_per_class=2, test_per_class=1, size=(32, 32), num_frames=20)
    motions = sorted(path.name for path in (folder / "all" / "train").iterdir())
    for number, motion in enumerate(motions):
        for split in ("train", "test"):
            shutil.move(folder / "all" / split / motion, folder / str(number % 2) / split / motion)
    return [VideoIndex.build(folder / half, workers=0) for half in ("0", "1")]


def small(name: str, index: VideoIndex, *more: str) -> Config:
    width = 16 if "resnext" in name else 4
    data = (f"data.root={index.root}", f"data.index={index.path}", "data.eval_split=test", f"model.width={width}")
    return load_config(name, [*SMALL, *data, *more])


def trained(config: Config, run: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """The (only step, only evaluation) that a run writes into its metrics."""
    train(config, run=run)
    found = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert [one["kind"] for one in found] == ["train", "eval"]
    return found[0], found[1]


@pytest.mark.parametrize("name", slow_if_deep(ALONE))
def test_a_shipped_config_takes_a_step_and_is_evaluated(name: str, halves: list[VideoIndex], tmp_path: Path) -> None:
    more = {
        "demo": ["schedule.warmup_epochs=0"],  # a run of one epoch has no room for a warmup of one
        "folder_finetune": ["init.weights=", "init.num_classes_changed=error"],  # its weights have to be fetched
    }.get(name, [])
    step, evaluation = trained(small(name, halves[0], *more), tmp_path / "run")
    assert step["lr"] == pytest.approx(load_config(name).optimizer.rate_for(8))  # SMALL has batches of 8
    assert (step["count"], step["skipped"], evaluation["count"]) == (8, 0, 4)


@pytest.mark.parametrize("name", slow_if_deep(FINETUNED))
def test_a_config_for_fine_tuning_starts_from_a_run_of_its_kinetics_config(
    name: str, halves: list[VideoIndex], tmp_path: Path
) -> None:
    """The two have the same scale of pixels. Below the part that is trained only statistics of batch norms change."""
    start = pretrained_on(name)
    assert start is not None
    trained(small(start, halves[0]), tmp_path / "kinetics")
    config = small(name, halves[1], f"init.weights={tmp_path / 'kinetics'}")
    step, evaluation = trained(config, tmp_path / "run")
    assert step["lr"] == pytest.approx(load_config(name).optimizer.rate_for(8))  # SMALL has batches of 8
    assert (step["count"], step["skipped"], evaluation["count"]) == (8, 0, 4)

    before, after = (read_tensors(tmp_path / run / "best" / "model.safetensors")[0] for run in ("kinetics", "run"))
    moved = {key for key in before if not (before[key] == after[key]).all()}
    statistics = {key for key in moved if key.endswith(("._mean", "._variance"))}
    learned = {key for key in moved - statistics if not key.startswith("head.")}
    assert any(key.startswith("backbone.stem") for key in statistics)  # init.frozen_statistics: train
    assert all(key.startswith(LAST_PART) for key in learned)
    assert bool(learned) == (config.init.freeze_until == "layer4")
    assert "head.fc.weight" in moved


def test_recipes_of_other_data_sets_differ_only_in_their_data() -> None:
    """So what the tests above train stands for all shipped configs."""
    names = set(shipped_configs())
    assert len(names) >= 44
    of_hmdb = {name for name in names if name.startswith("hmdb51") and name.endswith("_finetune")}
    assert len(of_hmdb) == 11
    for name in of_hmdb:
        assert without_data(name) == without_data(name.replace("hmdb51", "ucf101"))
        assert load_config(name).data.root == Path("HMDB-51")
    assert {*DISTINCT.values(), *map(pretrained_on, FINETUNED)} >= {name for name in names if "kinetics400" in name}
