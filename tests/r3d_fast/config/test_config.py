"""YAML and overrides become one checked Config, or one message that names every problem and its line."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from config_texts import write
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.errors import UsageError
from pipelines.specs import AugmentSpec, ClipSpec, LoaderSpec
from r3d_fast.config.config import Config, config_diff, config_from_json, dump_config, load_config
from r3d_fast.config.reference import config_reference
from r3d_fast.config.sections import DataSpec, ScheduleSpec
from r3d_fast.config.yaml_files import shipped_configs


def test_values_come_from_the_file_and_the_rest_from_the_models(tmp_path: Path) -> None:
    path = write(tmp_path, "train:\n  epochs: 3\noptimizer: {lr: 0.2}\ndata:\n  root: videos\nclip:\n")
    config = load_config(path)
    assert (config.train.epochs, config.optimizer.lr, config.data.root) == (3, 0.2, Path("videos"))
    assert config.clip == ClipSpec()
    assert config.train.keep_checkpoints == 2
    assert load_config(str(path)) == config


def test_defaults_are_the_reference_recipe() -> None:
    config = Config()
    assert (config.model.name, config.model.width, config.optimizer.lr, config.optimizer.weight_decay) == (
        "r3d18_reference",
        64,
        0.01,
        1e-3,
    )
    assert config.schedule == ScheduleSpec(kind="piecewise", milestones_epochs=(15, 20), gamma=0.1)
    assert (config.train.epochs, config.loader.batch_size) == (25, 64)


def test_every_field_of_the_config_models_is_described() -> None:
    for section, field in Config.model_fields.items():
        assert field.description, section
        model = field.annotation
        assert isinstance(model, type)
        if model.__module__ == "r3d_fast.config.config":
            for name, inner in model.model_fields.items():
                assert inner.description, f"{section}.{name}"


def test_a_config_is_frozen() -> None:
    with pytest.raises(ValueError, match="frozen"):
        Config().train.epochs = 3


@pytest.mark.parametrize(
    "name", ["demo", "ucf101_r3d18", "ucf101_r3d18_paper", "ucf101_r3d18_finetune", "hmdb51_r3d18_finetune"]
)
def test_shipped_configs_load_by_name_and_by_file(name: str) -> None:
    assert load_config(name) == load_config(shipped_configs()[name])


def test_the_reference_config_says_what_the_defaults_are() -> None:
    reference = load_config("ucf101_r3d18", ["data.root=null", "eval.views=null", "eval.batch_size=null"])
    assert config_diff(Config(), reference) == []


def test_the_paper_config_has_the_papers_crops_and_mean() -> None:
    config = load_config("ucf101_r3d18_paper")
    assert [int(240 * scale) for scale in config.augment.scales] == [240, 201, 169, 142, 119]
    assert config.augment.mean == (114.7748, 107.7354, 99.475)
    assert (config.augment.value_max, config.augment.std) == (255, (1.0, 1.0, 1.0))
    assert (config.clip.sampling, config.clip.short, config.clip.views) == ("consecutive", "loop", "paper")
    assert not config.clip.reach_end
    assert (config.eval.views, config.schedule.watch, config.schedule.patience_evals) == (3, "clip_loss", 10)
    assert (config.optimizer.lr, config.model.shortcut, config.model.shortcut_gradient) == (0.01, None, False)


def test_fine_tuning_has_the_authors_rate_without_dampening() -> None:
    config = load_config("hmdb51_resnext101_64f_finetune")
    assert (config.optimizer.lr, config.optimizer.weight_decay, config.train.epochs) == (1e-4, 1e-5, 300)
    assert (config.init.freeze_until, config.init.frozen_statistics) == ("layer4", "train")
    assert (config.model.name, config.clip.num_frames, config.data.root) == ("resnext101", 64, Path("HMDB-51"))


def test_no_config_pins_a_shortcut() -> None:
    of_torchvision = {"folder_finetune"}  # its weights are of a network that is not the paper's
    assert {load_config(name).model.shortcut for name in set(shipped_configs()) - of_torchvision} == {None}


def test_kinetics_has_the_mean_that_fine_tuning_has() -> None:
    kinetics = [name for name in shipped_configs() if name.startswith("kinetics") and not name.endswith("master")]
    assert len(kinetics) == 13
    for name in kinetics:
        assert load_config(name).augment == load_config("ucf101_r3d18_finetune").augment


def test_names_of_shipped_configs_are_unique() -> None:
    files = [path.stem for path in (Path(__file__).parents[3] / "configs").rglob("*.yaml")]
    assert sorted(files) == sorted(shipped_configs())


def test_the_demo_does_not_mirror() -> None:
    assert load_config("demo").augment.mirror == 0.0


def test_overrides_have_the_last_word(tmp_path: Path) -> None:
    path = write(tmp_path, "train: {epochs: 3, seed: 5}\naugment: {scales: [1.0, 0.5]}\n")
    config = load_config(
        path,
        [
            "train.epochs=4",
            "train.epochs=1_0",
            "augment.scales=[0.9]",
            "model={width: 16, dropout: 0.5}",
            "data.root=a b=c",
            "train.checkpoint_every_minutes=",
            "loader.workers=0",
        ],
    )
    assert (config.train.epochs, config.train.seed, config.augment.scales) == (10, 5, (0.9,))
    assert (config.model.width, config.model.dropout, config.model.name) == (16, 0.5, "r3d18_reference")
    assert (config.data.root, config.train.checkpoint_every_minutes, config.loader.workers) == (Path("a b=c"), None, 0)


def test_numbers_that_yaml_takes_for_text_are_numbers(tmp_path: Path) -> None:
    path = write(tmp_path, 'optimizer: {lr: 1e-3, weight_decay: 5e-4}\nloader: {batch_size: "32"}\n')
    config = load_config(path, ["model.dropout=1e-1"])
    assert (config.optimizer.lr, config.optimizer.weight_decay) == (0.001, 0.0005)
    assert (config.loader.batch_size, config.model.dropout) == (32, 0.1)


def test_a_schedule_without_a_kind_changes_the_default_one() -> None:
    assert load_config("ucf101_r3d18", ["schedule={warmup_epochs: 2}"]).schedule.warmup_epochs == 2
    assert Config.model_validate({"schedule": {"gamma": 0.2}}).schedule.milestones_epochs == (15, 20)
    assert Config.model_validate({"schedule": {"kind": "cosine"}}).schedule == ScheduleSpec(kind="cosine")


def test_layout_follows_the_data_format_and_the_other_way_round(tmp_path: Path) -> None:
    def formats(*overrides: str) -> tuple[str, str]:
        config = load_config("demo", overrides)
        again = load_config(write(tmp_path, dump_config(config)))
        assert again == config
        return config.model.data_format, config.augment.layout

    assert formats() == ("auto", "NCTHW")
    assert formats("model.data_format=NDHWC") == ("NDHWC", "NTHWC")
    assert formats("model.data_format=NCDHW") == ("NCDHW", "NCTHW")
    assert formats("augment.layout=NTHWC") == ("NDHWC", "NTHWC")
    assert formats("augment.layout=NCTHW") == ("NCDHW", "NCTHW")
    assert formats("augment.layout=NTHWC", "model.data_format=NDHWC") == ("NDHWC", "NTHWC")


def test_the_data_format_of_a_dumped_config_can_be_overridden(tmp_path: Path) -> None:
    for override in ("NCDHW", "NDHWC"):
        path = write(tmp_path, dump_config(load_config("demo", ["model.data_format=NCDHW"])))
        assert load_config(path, [f"model.data_format={override}"]).model.data_format == override


@pytest.mark.parametrize("data_format", ["auto", "NCDHW", "NDHWC"])
def test_a_config_comes_back_from_json(data_format: str) -> None:
    config = load_config("demo", [f"model.data_format={data_format}"])
    assert config_from_json(config.model_dump(mode="json")) == config


def test_line_breaks_outside_ascii_come_back(tmp_path: Path) -> None:
    for split in ("\x85", "a\u2028b", "\u2029 "):
        config = Config.model_validate({"data": {"train_split": split}})
        assert load_config(write(tmp_path, dump_config(config))) == config


def test_a_config_in_a_data_format() -> None:
    config = Config().in_data_format("NDHWC")
    assert (config.model.data_format, config.augment.layout) == ("NDHWC", "NTHWC")
    assert config_diff(Config(), config) == [
        'augment.layout: "NCTHW" -> "NTHWC"',
        'model.data_format: "auto" -> "NDHWC"',
    ]


def test_home_is_expanded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/me")
    assert load_config("demo", ["data.root=~/videos"]).data.root == Path("/home/me/videos")


def test_data_needs_a_source() -> None:
    with pytest.raises(UsageError, match=r"data\.root and data\.index are both unset"):
        DataSpec().require_source()
    DataSpec(root=Path("videos")).require_source()
    DataSpec(index=Path("videos.r3dindex")).require_source()


def test_diff_names_what_differs() -> None:
    other = load_config("ucf101_r3d18", ["train.epochs=3", "data.root=x", "schedule.milestones_epochs=[1]"])
    assert config_diff(load_config("ucf101_r3d18"), other) == [
        'data.root: "UCF-101" -> "x"',
        "schedule.milestones_epochs: [15.0, 20.0] -> [1.0]",
        "train.epochs: 25 -> 3",
    ]


numbers = st.floats(1e-9, 1e9)
names = st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1, max_size=20)


@settings(deadline=None, max_examples=50)
@given(
    root=st.one_of(st.none(), names.map(Path)),
    split=names,
    lr=numbers,
    mean=st.tuples(*[st.floats(-1e6, 1e6)] * 3),
    scales=st.lists(st.floats(0.01, 1.0), min_size=1, max_size=5).map(tuple),
    workers=st.one_of(st.just("auto"), st.integers(0, 512)),
    milestones=st.lists(st.floats(0.1, 1e4), min_size=1, max_size=4, unique=True).map(sorted).map(tuple),
    minutes=st.one_of(st.none(), numbers),
    value_max=st.sampled_from([1, 255]),
)
def test_a_dumped_config_reads_back_equal(
    tmp_path_factory: pytest.TempPathFactory,
    root: Path | None,
    split: str,
    lr: float,
    mean: tuple[float, float, float],
    scales: tuple[float, ...],
    workers: str | int,
    milestones: tuple[float, ...],
    minutes: float | None,
    value_max: int,
) -> None:
    config = Config.model_validate(
        {
            "data": {"root": root, "train_split": split},
            "optimizer": {"lr": lr, "nesterov": True},
            "augment": AugmentSpec.model_validate({"mean": mean, "scales": scales, "value_max": value_max}),
            "loader": LoaderSpec.model_validate({"workers": workers}),
            "schedule": {"kind": "piecewise", "milestones_epochs": milestones},
            "train": {"checkpoint_every_minutes": minutes},
            "clip": {"sampling": "consecutive", "views": "all"},
        }
    )
    path = tmp_path_factory.getbasetemp() / "dumped.yaml"
    path.write_text(dump_config(config), encoding="utf-8", newline="")
    assert load_config(path) == config


def test_importing_the_config_stays_light() -> None:
    code = "import sys, r3d_fast.config.config; print(sorted({'paddle', 'av', 'nvidia', 'numpy'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_the_page_of_the_config_lists_every_key_as_it_is() -> None:
    reference = config_reference()
    assert "see its class" not in reference
    page = (Path(__file__).resolve().parents[3] / "docs" / "config.md").read_text(encoding="utf-8")
    assert reference in page, "run `make docs`"
