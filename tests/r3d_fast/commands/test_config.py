"""Configs are listed and shown as files that load again, keys are found by words, and a shell completes both."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from pydantic import TypeAdapter

from r3d_fast.cli import cli, run_cli
from r3d_fast.config.config import Config, load_config
from r3d_fast.config.reference import config_keys
from r3d_fast.config.yaml_files import shipped_configs, summary_of


def run(*arguments: str) -> int:
    return run_cli(cli, ["config", *arguments], "r3d-fast")


def test_without_a_name_all_configs_are_listed_with_what_they_are_for(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("show") == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == sorted(shipped_configs())
    assert all(summary_of(path) for path in shipped_configs().values()), "a config without a comment at its top"
    assert "demo          " in "\n".join(lines)


@pytest.mark.parametrize("name", ["demo", "folder_finetune", "ucf101_wide50_finetune"])
def test_what_is_shown_is_a_config_file_with_all_values(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("show", name, "-o", "train.epochs=3") == 0
    shown = capsys.readouterr().out
    (tmp_path / "shown.yaml").write_text(shown, encoding="utf-8")
    assert load_config(tmp_path / "shown.yaml") == load_config(name, ["train.epochs=3"])
    assert shown.startswith(f"# {shipped_configs()[name]}\n")
    assert "\n# -o train.epochs=3\n" in shown


def test_keys_are_all_of_them_or_those_with_the_words(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("keys") == 0
    names = [line.split()[0] for line in capsys.readouterr().out.splitlines() if not line.startswith(" ")]
    sections = Config.model_validate({}).model_dump()
    assert names == [f"{section}.{key}" for section, keys in sections.items() for key in keys]
    assert run("keys", "Nesterov") == 0
    assert (
        capsys.readouterr().out
        == "optimizer.nesterov  (default: false)\n    only for momentum: use Nesterov's form of it\n"
    )


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["keys", "xyzzy"], "no key with xyzzy in its name or meaning"),
        (["show", "-o", "train.epochs=3"], "-o without a config"),
        (["show", "nope"], "which `r3d-fast config show` lists"),
        (["show", "demo", "-o", "train.epoch=3"], "-o train.epoch=3: unknown key; did you mean epochs?"),
    ],
)
def test_what_can_not_be_shown_is_one_line(arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(*arguments) == 2
    err = capsys.readouterr().err
    assert said in err
    assert len(err.splitlines()) == 1


@pytest.fixture(scope="module")
def bash(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, dict[str, str]]:
    """(what a user puts into ~/.bashrc, the environment in which it finds r3d-fast)."""
    if shutil.which("bash") is None:
        pytest.skip("no bash here")
    folder = tmp_path_factory.mktemp("bin")
    program = folder / "r3d-fast"
    program.write_text(f"#!{sys.executable}\nfrom r3d_fast.cli import main\nmain()\n", encoding="utf-8")
    program.chmod(0o755)
    root = str(Path(__file__).parents[3])
    environment = {**os.environ, "PATH": f"{folder}:{os.environ['PATH']}", "PYTHONPATH": root}
    return 'eval "$(_R3D_FAST_COMPLETE=bash_source r3d-fast)"', environment


@pytest.mark.parametrize(
    ("typed", "offered"),
    [
        ("train -c folder_", {"folder_finetune", "folder_r3d18"}),
        ("config show dem", {"demo"}),
        ("train -o optimizer.lr", {"optimizer.lr=", "optimizer.lr_for_batch="}),
        ("train -o schedule.kind=c", {"schedule.kind=cosine", "schedule.kind=constant"}),
        ("train -o model.max_pool=", {"model.max_pool=true", "model.max_pool=false"}),
        ("data weights r3d18-k", {"r3d18-kinetics400"}),
    ],
)
def test_bash_completes_configs_keys_and_values(
    bash: tuple[str, dict[str, str]], typed: str, offered: set[str]
) -> None:
    setup, environment = bash
    words = ["r3d-fast", *typed.split()]
    script = (
        f"{setup}; COMP_WORDS=({' '.join(words)}); COMP_CWORD={len(words) - 1}; _r3d_fast_completion r3d-fast; "
        'printf "%s\\n" "${COMPREPLY[@]}"'
    )
    done = subprocess.run(["bash", "-c", script], env=environment, capture_output=True, text=True, check=False)
    assert set(done.stdout.split()) == offered, done.stderr


def test_the_choices_of_a_key_are_values_that_it_takes() -> None:
    config = Config.model_validate({})
    few = [key for key in config_keys() if key.choices]
    assert {"model.max_pool", "schedule.kind", "loader.workers"} <= {key.name for key in few}
    for name, _, _, choices in few:
        section, _, key = name.partition(".")
        field = type(getattr(config, section)).model_fields[key]
        for choice in choices:
            TypeAdapter(field.annotation).validate_python(yaml.safe_load(choice))
