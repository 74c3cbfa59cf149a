"""YAML and overrides become one checked Config, or one message that names every problem and its line."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.errors import UsageError
from pipelines.specs import AugmentSpec, ClipSpec, LoaderSpec
from r3d_fast.config import (
    Config,
    ConfigError,
    DataConfig,
    config_diff,
    config_from_json,
    dump_config,
    load_config,
)
from r3d_fast.config_reference import config_reference
from r3d_fast.config_source import shipped_configs
from r3d_fast.schedule import ScheduleSpec


def write(folder: Path, text: str, name: str = "run.yaml") -> Path:
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return path


def problems(source: str | Path, *overrides: str) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        load_config(source, overrides)
    assert caught.value.exit_code == 2
    return [line.replace(str(source), "FILE") for line in str(caught.value).splitlines()]


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
        if model.__module__ == "r3d_fast.config":
            for name, inner in model.model_fields.items():
                assert inner.description, f"{section}.{name}"


def test_a_config_is_frozen() -> None:
    with pytest.raises(ValueError, match="frozen"):
        Config().train.epochs = 3


@pytest.mark.parametrize("name", ["demo", "ucf101_r3d18", "ucf101_r3d18_paper"])
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
    assert (config.clip.sampling, config.clip.short, config.clip.views) == ("consecutive", "loop", "all")


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


def test_all_problems_are_reported_at_once(tmp_path: Path) -> None:
    text = """\
clip:
  num_frames: 0
loader:
  batch_size: 0
optimizer:
  lr: -0.1
  lrr: 1
  weight_decay: .nan
  momentum: .inf
train:
  epochs: 0
  device: cuda
augment:
  scales: [1.0, big, true]
"""
    path = write(tmp_path, text)
    assert problems(path, "model.widht=3", "train.seed=-1", "train.log_every_steps") == [
        "-o train.log_every_steps: expected section.key=value, such as -o train.epochs=3",
        "FILE: clip.num_frames (line 2): expected greater than or equal to 1, got 0",
        "FILE: augment.scales.1 (line 14): expected a valid number, got 'big'",
        "FILE: augment.scales.2 (line 14): expected a valid number, got true",
        "FILE: loader.batch_size (line 4): expected greater than or equal to 1, got 0",
        "-o model.widht=3: unknown key; did you mean width?",
        "FILE: optimizer.lr (line 6): expected greater than 0, got -0.1",
        "FILE: optimizer.momentum (line 9): expected a finite number, got inf",
        "FILE: optimizer.weight_decay (line 8): expected a finite number, got nan",
        "FILE: optimizer.lrr (line 7): unknown key; did you mean lr?",
        "FILE: train.epochs (line 11): expected greater than or equal to 1, got 0",
        "-o train.seed=-1: expected greater than or equal to 0, got -1",
        "FILE: train.device (line 12): expected 'auto', 'cpu' or 'gpu', got 'cuda'",
    ]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("trian: {epochs: 3}", "FILE: trian (line 1): unknown key; did you mean train?"),
        ("lr: 0.1", "FILE: lr (line 1): unknown key; did you mean optimizer.lr?"),
        (
            "train:\n  weight_decay: 0",
            "FILE: train.weight_decay (line 2): unknown key; did you mean optimizer.weight_decay?",
        ),
        (
            "eval: {zebra: 1}",
            "FILE: eval.zebra (line 1): unknown key; expected one of views, batch_size",
        ),
        ("train: 3", "FILE: train (line 1): expected keys below it, got 3"),
        ("train:\n  epochs: true", "FILE: train.epochs (line 2): expected a valid integer, got true"),
        ("optimizer: {lr: yes}", "FILE: optimizer.lr (line 1): expected a valid number, got true"),
        ("model: {name: no}", "FILE: model.name (line 1): expected a valid string, got false"),
        ("augment: {value_max: true}", "FILE: augment.value_max (line 1): expected 1 or 255, got true"),
        ("loader: {workers: many}", "FILE: loader.workers (line 1): expected a valid integer or 'auto', got 'many'"),
        ("train: {epochs: 2.5}", "FILE: train.epochs (line 1): expected a valid integer, got 2.5"),
        (
            "train:\n  epochs: 2\n  seed: 1\n  epochs: 3",
            "FILE: train.epochs (line 4): given twice, first on line 2",
        ),
        ("train: {epochs: 2}\ntrain: {seed: 1}", "FILE: train (line 2): given twice, first on line 1"),
        (
            "clip:\n  stride: 2",
            "FILE: clip (line 1): stride 2 has no meaning for segments sampling; expected 1",
        ),
        (
            "model: {data_format: NDHWC}\naugment: {layout: NCTHW}",
            "FILE: model.data_format NDHWC goes with augment.layout NTHWC, got NCTHW",
        ),
        ("eval: {views: all}", "FILE: eval.views 'all' needs clip.sampling consecutive, got segments"),
        ("<<: {a: 1}", "FILE: << (line 1): unknown key; expected one of data, clip, augment"),
        ("- a\n- b", "FILE: expected sections such as `train:` with keys below them, got ['a', 'b']"),
        ("", "FILE: expected sections such as `train:` with keys below them, got nothing"),
        ("train: [", "FILE: line 1, column 9: "),
        ("train:\n\tepochs: 3", "FILE: line 2, column 1: "),
        ("a: 1\n---\nb: 2", "FILE: line 2, column 1: but found another document"),
        ("train: {epochs: *nothing}", "FILE: line 1, column 17: found undefined alias 'nothing'"),
        ("? [a, b]\n: c", "FILE: line 1, column 3: expected a name as key"),
        ("train: {seed: 2024-13-45}", "FILE: line 1, column 15: month must be in 1..12"),
        ("train: \x07", "FILE: unacceptable character #x0007: special characters are not allowed"),
        ("[" * 20000, "FILE: nested too deeply; expected sections with keys below them"),
        (
            "train: {seed: 0x" + "f" * 6000 + "}",
            "FILE: train.seed (line 1): expected less than 9223372036854775808, got",
        ),
        ("base: 3", "FILE: base: expected a file or the name of a shipped config, got 3"),
        ("base: nowhere.yaml", "FILE: base: "),
    ],
)
def test_one_problem(tmp_path: Path, text: str, said: str) -> None:
    (found,) = problems(write(tmp_path, text))
    assert found.startswith(said)


def test_yaml_runs_no_code(tmp_path: Path) -> None:
    made = tmp_path / "made"
    for text in (
        f"!!python/object/apply:os.system ['touch {made}']",
        f"a: !!python/object/new:os.system [touch {made}]",
    ):
        (found,) = problems(write(tmp_path, text))
        assert "could not determine a constructor for the tag 'tag:yaml.org,2002:python/" in found
        (found,) = problems("demo", f"data.root={text.removeprefix('a: ')}")
        assert found.startswith("-o data.root=!!python/")
    assert not made.exists()


def test_bombs_are_refused_quickly(tmp_path: Path) -> None:
    levels = [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 11)]
    bomb = "\n".join(["a0: &a0 lol", *levels])
    assert all("unknown key" in line for line in problems(write(tmp_path, bomb)))  # 90 aliases: small while shared
    (found,) = problems(write(tmp_path, bomb + "\nb: [" + ", ".join(["*a0"] * 11) + "]"))
    assert found == "FILE: line 12, column 55: more than 100 aliases (*name); write the values out"
    assert load_config(write(tmp_path, "train: &t {epochs: 2}\n")).train.epochs == 2
    (found,) = problems(write(tmp_path, "augment: {scales: &s [*s]}"))
    assert "augment.scales.0" in found
    (found,) = problems(write(tmp_path, "# " + "x" * (1 << 20)))
    assert found == "FILE: larger than 1 MiB; expected a config of some lines"


def test_files_that_are_no_text(tmp_path: Path) -> None:
    path = tmp_path / "run.yaml"
    assert "no such file; expected a YAML file or one of the shipped configs: demo, ucf101_r3d18" in problems(path)[0]
    path.write_bytes(b"data: {root: caf\xe9}")
    assert problems(path) == ["FILE: not UTF-8 at byte 16; save the file as UTF-8"]
    assert "not a file" in problems(f"{tmp_path}/")[0]
    assert "can't be read" in problems("x" * 5000 + ".yaml")[0]
    path.write_bytes(b"\xef\xbb\xbfdata: {root: caf\xc3\xa9}\r\n")
    assert load_config(path).data.root == Path("café")


def test_an_unknown_name_lists_the_shipped_ones() -> None:
    (found,) = problems("ucf101_r3d81")
    assert found.startswith("FILE: no such config; did you mean ucf101_r3d18?; shipped: demo, ucf101_r3d18")


def test_a_checkpoint_from_before_crop_and_jitter_resumes() -> None:
    """Its config knows none of these keys, and is the config of today with none of them on."""
    today = load_config("ucf101_r3d18")
    values = today.model_dump(mode="json")
    for name in ("crop", "area", "aspect", "brightness", "contrast", "saturation", "hue"):
        del values["augment"][name]
    assert config_diff(config_from_json(values), today) == []


def test_base_is_one_level_and_relative_to_the_file(tmp_path: Path) -> None:
    (tmp_path / "deep").mkdir()
    write(tmp_path / "deep", "train: {epochs: 3, seed: 4}\naugment: {scales: [0.5, 0.25]}\n", "below.yaml")
    path = write(tmp_path, "base: deep/below.yaml\ntrain: {epochs: 5}\naugment: {scales: [1.0]}\n")
    config = load_config(path)
    assert (config.train.epochs, config.train.seed, config.augment.scales) == (5, 4, (1.0,))

    above = write(tmp_path, "base: run.yaml\n", "above.yaml")
    (found,) = problems(above)
    assert "has a base itself" in found
    assert load_config(write(tmp_path, "base: demo\n")) == load_config("demo")


def test_problems_of_a_base_carry_its_name_and_line(tmp_path: Path) -> None:
    below = write(tmp_path, "\n\ntrain: {epochs: 0, sed: 1, sed: 2}\n", "below.yaml")
    path = write(tmp_path, "base: below.yaml\nloader: {batch_size: 0}\n")
    assert problems(path) == [
        f"{below}: train.sed (line 3): given twice, first on line 3",
        "FILE: loader.batch_size (line 2): expected greater than or equal to 1, got 0",
        f"{below}: train.epochs (line 3): expected greater than or equal to 1, got 0",
        f"{below}: train.sed (line 3): unknown key; did you mean seed?",
    ]


@pytest.mark.parametrize("override", ["train.epochs", "=3", ".epochs=3", "train.=3", "train..epochs=3", ""])
def test_overrides_that_are_none(override: str) -> None:
    assert problems("demo", override) == [f"-o {override}: expected section.key=value, such as -o train.epochs=3"]


def test_problems_of_overrides_name_the_override() -> None:
    assert problems("demo", "train.epochs=[", "train.seed=x", "basis=demo", "clip.num_frames.x=3") == [
        "-o train.epochs=[: line 1, column 2: expected the node content, but found '<stream end>'",
        "-o clip.num_frames.x=3: expected a valid integer, got {'x': 3}",
        "-o train.seed=x: expected a valid integer, got 'x'",
        "-o basis=FILE: unknown key; expected one of "  # FILE: the config is called demo too
        "data, clip, augment, loader, model, optimizer, schedule, train, eval",
    ]


def test_data_needs_a_source() -> None:
    with pytest.raises(UsageError, match=r"data\.root and data\.index are both unset"):
        DataConfig().require_source()
    DataConfig(root=Path("videos")).require_source()
    DataConfig(index=Path("videos.r3dindex")).require_source()


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
    code = "import sys, r3d_fast.config; print(sorted({'paddle', 'av', 'nvidia', 'numpy'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_the_readme_lists_every_key_as_it_is() -> None:
    reference = config_reference()
    assert "see its class" not in reference
    readme = (Path(__file__).resolve().parent.parent / "README.md").read_text(encoding="utf-8")
    assert reference in readme, "run: python -m r3d_fast.config_reference, and put its table at the end of the README"
