"""YAML and overrides become one checked Config, or one message that names every problem and its line."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from config_texts import problems, write

from r3d_fast.config.config import config_diff, config_from_json, load_config
from r3d_fast.config.yaml_files import config_files, shipped_configs


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
        "FILE: loader.batch_size (line 4): expected greater than or equal to 1 or 'auto', got 0",
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
            "FILE: eval.zebra (line 1): unknown key; expected one of views, crops, batch_size",
        ),
        ("train: 3", "FILE: train (line 1): expected keys below it, got 3"),
        ("train:\n  epochs: true", "FILE: train.epochs (line 2): expected a valid integer, got true"),
        ("optimizer: {lr: yes}", "FILE: optimizer.lr (line 1): expected a valid number, got true"),
        ("model: {name: no}", "FILE: model.name (line 1): expected a valid string, got false"),
        ("augment: {value_max: true}", "FILE: augment.value_max (line 1): expected 1 or 255, got true"),
        ("loader: {workers: many}", "FILE: loader.workers (line 1): expected a valid integer or 'auto', got 'many'"),
        ("train: {epochs: }", "FILE: train.epochs (line 1): expected a valid integer, but the value is empty"),
        ("augment: {mean: [1, 2]}", "FILE: augment.mean (line 1): expected 3 numbers, got 2"),
        ("augment: {mean: [1]}", "FILE: augment.mean (line 1): expected 3 numbers, got 1"),
        ("augment: {mean: [1, 2, 3, 4]}", "FILE: augment.mean (line 1): expected 3 numbers, got 4"),
        ("augment: {scales: []}", "FILE: augment.scales (line 1): expected at least 1 number, got 0"),
        ("optimizer: {betas: [0.9]}", "FILE: optimizer.betas (line 1): expected 2 numbers, got 1"),
        ("train: {epochs: 2.5}", "FILE: train.epochs (line 1): expected a valid integer, got 2.5"),
        (
            "train:\n  epochs: 2\n  seed: 1\n  epochs: 3",
            "FILE: train.epochs (line 4): given twice, first on line 2",
        ),
        ("train: {epochs: 2}\ntrain: {seed: 1}", "FILE: train (line 2): given twice, first on line 1"),
        (
            "clip:\n  stride: 2",
            "FILE: clip.stride (line 2): stride 2 has no meaning for segments sampling; expected 1",
        ),
        (
            "model: {data_format: NDHWC}\naugment: {layout: NCTHW}",
            "FILE: model.data_format (line 1): model.data_format NDHWC needs augment.layout NTHWC, got NCTHW",
        ),
        (
            "eval: {views: all}",
            "FILE: eval.views (line 1): eval.views 'all' needs clip.sampling consecutive, got segments",
        ),
        (
            "eval: {views: paper}",
            "FILE: eval.views (line 1): eval.views 'paper' needs clip.sampling consecutive, got segments",
        ),
        ("clip: {views: paper}", "FILE: clip.views (line 1): views 'paper' needs sampling 'consecutive'"),
        (
            "clip: {reach_end: false}",
            "FILE: clip.reach_end (line 1): reach_end false has no meaning for segments sampling",
        ),
        ("clip: {reach_end: 0.5}", "FILE: clip.reach_end (line 1): expected a valid boolean"),
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
    assert found == "FILE: larger than 1 MiB; expected a config file of a few kB: check the path"


def test_files_that_are_no_text(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "run.yaml"
    assert (
        f"no such file; expected a YAML file, or one of the {len(shipped_configs())} shipped configs, which `r3d-fast "
        in problems(path)[0]
    )
    path.write_bytes(b"data: {root: caf\xe9}")
    assert problems(path) == ["FILE: not UTF-8 at byte 16; save the file as UTF-8"]
    assert "it is a folder; expected a YAML file" in problems(f"{tmp_path}/")[0]
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine").mkdir()
    assert problems("mine")[0].startswith("FILE: it is a folder; expected a file that ends in .yaml")
    assert "can't be read" in problems("x" * 5000 + ".yaml")[0]
    path.write_bytes(b"\xef\xbb\xbfdata: {root: caf\xc3\xa9}\r\n")
    assert load_config(path).data.root == Path("café")


def test_an_unknown_name_tells_those_like_it_or_the_command_that_lists_all() -> None:
    assert problems("ucf101_r3d81") == [
        "FILE: no such config; expected a file that ends in .yaml, or a shipped config: did you mean ucf101_r3d18?"
    ]
    (found,) = problems("mine")
    assert found == (
        f"FILE: no such config; expected a file that ends in .yaml, or one of the {len(shipped_configs())} shipped "
        "configs, which `r3d-fast config show` lists"
    )


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (["clip.views=all", "clip.num_frames=8"], "-o clip.views=all: views 'all' needs sampling 'consecutive'"),
        (["eval.views=all", "train.epochs=2"], "-o eval.views=all: eval.views 'all' needs clip.sampling consecutive"),
        (["eval.views=all", "eval.crops=3"], "-o eval.views=all: eval.views 'all' needs clip.sampling consecutive"),
        (["schedule.kind=cosine", "schedule.gamma=1"], "-o schedule.kind=cosine: milestones_epochs [15.0, 20.0] have"),
        (
            ["optimizer.name=adamw", "optimizer.momentum=0.5", "optimizer.lr=0.1"],
            "-o optimizer.momentum=0.5: momentum 0.5 has no meaning for name 'adamw'",
        ),
        (
            ["model.data_format=NCDHW", "augment.layout=NTHWC", "augment.mirror=0"],
            "-o augment.layout=NTHWC: model.data_format NCDHW needs augment.layout NCTHW, got NTHWC",
        ),
        (["clip={views: all, num_frames: 8}"], "-o clip={views: all, num_frames: 8}: views 'all' needs"),
    ],
)
def test_values_that_do_not_go_together_blame_the_one_that_was_set_last(overrides: list[str], said: str) -> None:
    (found,) = problems("ucf101_r3d18", *overrides)
    assert found.startswith(said)


def test_a_checkpoint_from_before_crop_and_jitter_resumes() -> None:
    """Its config knows none of these keys, and is the config of today with none of them on."""
    today = load_config("ucf101_r3d18")
    values = today.model_dump(mode="json")
    for name in ("crop", "area", "aspect", "brightness", "contrast", "saturation", "hue"):
        del values["augment"][name]
    assert config_diff(config_from_json(values), today) == []


@pytest.mark.parametrize(("name", "shortcut"), [("r3d18", "B"), ("preact34", "B"), ("r3d34", None), ("r3d50", None)])
def test_a_dump_from_before_shortcut_gradient_keeps_the_shortcut_that_its_model_had(
    tmp_path: Path, name: str, shortcut: str | None
) -> None:
    today = load_config("ucf101_r3d18", [f"model.name={name}", "model.shortcut=null"])
    assert today.model.shortcut is None
    values = today.model_dump(mode="json")
    for key in ("shortcut_gradient", "conv1_t_size", "conv1_t_stride", "max_pool", "stem_factor"):
        del values["model"][key]
    assert config_from_json(values).model.shortcut == shortcut
    del values["augment"]["layout"]
    path = write(tmp_path, yaml.safe_dump(values))
    assert load_config(path, ["train.epochs=3"]).model.shortcut == shortcut
    assert config_from_json(today.model_dump(mode="json")).model.shortcut is None
    # A file that someone wrote leaves out more keys, and means the shortcut of today.
    assert load_config(write(tmp_path, f"model: {{name: {name}, shortcut: null}}\n")).model.shortcut is None


def test_an_even_kernel_in_time_is_refused(tmp_path: Path) -> None:
    assert problems(write(tmp_path, "model: {conv1_t_size: 4}\n"))[0].endswith(
        "conv1_t_size 4: expected an odd number of frames"
    )
    assert "expected 1 or 2, got 3" in problems(write(tmp_path, "model: {conv1_t_stride: 3}\n"))[0]


def test_bases_follow_one_another_each_relative_to_its_file(tmp_path: Path) -> None:
    (tmp_path / "deep").mkdir()
    write(tmp_path / "deep", "train: {epochs: 3, seed: 4}\naugment: {scales: [0.5, 0.25]}\n", "below.yaml")
    path = write(tmp_path, "base: deep/below.yaml\ntrain: {epochs: 5}\naugment: {scales: [1.0]}\n")
    config = load_config(path)
    assert (config.train.epochs, config.train.seed, config.augment.scales) == (5, 4, (1.0,))

    write(tmp_path / "deep", "base: ../run.yaml\ntrain: {seed: 5}\n", "above.yaml")
    config = load_config(write(tmp_path, "base: deep/above.yaml\nmodel: {width: 8}\n", "top.yaml"))
    assert (config.train.epochs, config.train.seed, config.model.width) == (5, 5, 8)
    assert (config.augment.scales, config_files(str(tmp_path / "top.yaml"))[0].name) == ((1.0,), "below.yaml")
    assert load_config(write(tmp_path, "base: demo\n")) == load_config("demo")


def test_a_base_that_leads_back_is_refused(tmp_path: Path) -> None:
    write(tmp_path, "base: run.yaml\n")
    said = "builds on itself; expected a base that does not name"
    assert problems(tmp_path / "run.yaml") == [f"FILE: base: FILE: {said} run.yaml again"]
    write(tmp_path, "base: second.yaml\n", "first.yaml")
    second = write(tmp_path, "base: first.yaml\n", "second.yaml")
    assert problems(tmp_path / "first.yaml") == [f"{second}: base: FILE: {said} second.yaml again"]


def test_endless_bases_are_refused(tmp_path: Path) -> None:
    for number in range(20):
        write(tmp_path, f"base: {number + 1}.yaml\n", f"{number}.yaml")
    (found,) = problems(tmp_path / "0.yaml")
    assert found.endswith("8.yaml: the 8th base in a row; expected fewer: copy the values of some")
    write(tmp_path, "train: {epochs: 3}\n", "7.yaml")
    assert load_config(tmp_path / "0.yaml").train.epochs == 3


def test_problems_of_a_base_carry_its_name_and_line(tmp_path: Path) -> None:
    below = write(tmp_path, "\n\ntrain: {epochs: 0, sed: 1, sed: 2}\n", "below.yaml")
    path = write(tmp_path, "base: below.yaml\nloader: {batch_size: 0}\n")
    assert problems(path) == [
        f"{below}: train.sed (line 3): given twice, first on line 3",
        "FILE: loader.batch_size (line 2): expected greater than or equal to 1 or 'auto', got 0",
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
        "data, clip, augment, loader, model, init, optimizer, schedule, train, eval",
    ]
