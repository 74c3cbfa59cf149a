"""The script that measures on a GPU: what it refuses, what it would run, and what it makes of failures."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from pathlib import Path

import click
import pytest

from bench.cli import cli as bench_cli
from pipelines.machine.nvidia import probe_driver
from r3d_fast.cli import cli as r3d_fast_cli

SCRIPT = Path(__file__).resolve().parents[2] / "bench" / "v100.sh"
# Stands for every command: it makes what its name says, and fails where FAILING, a pattern, says so.
COMMAND = """#!/bin/sh
echo "$(basename "$0") $*" >> "$CALLS"
case "$*" in
    doctor\\ --json)
        echo '{"device": "gpu", "checks": [], "driver": {"problem": "", "to_do": "", "gpus": [{"arch": '"$ARCH"'}]}}' ;;
    *$FAILING*) echo "boom" >&2; exit "$CODE" ;;
esac
while [ $# -gt 0 ]; do [ "$1 $2" = "--json " ] || [ "$1" != --json ] || echo '{}' > "$2"; shift; done
"""


def run(*arguments: object, **environment: str) -> subprocess.CompletedProcess[str]:
    command = ["bash", str(SCRIPT), *map(str, arguments)]
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    environment = {**os.environ, "PATH": path, **environment}
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120, check=False)


def parse(words: list[str]) -> None:
    """Raise what click raises for a command line, short of running it."""
    command: click.Command = {"bench": bench_cli, "r3d-fast": r3d_fast_cli}[words[0]]
    name, rest = words[0], words[1:]
    while isinstance(command, click.Group):
        name, *rest = rest
        assert name in command.commands, words
        command = command.commands[name]
    command.make_context(name, list(rest))


def test_the_script_is_well_formed_and_says_how_it_is_used() -> None:
    subprocess.run(["bash", "-n", str(SCRIPT)], check=True)
    assert "set -euo pipefail" in SCRIPT.read_text(encoding="utf-8").splitlines()[:4]
    assert os.access(SCRIPT, os.X_OK)
    done = run("--help")
    assert (done.returncode, done.stderr) == (0, "")
    for option in ("--lists", "--split", "--videos", "--out", "--full", "--dry-run", "Exit codes"):
        assert option in done.stdout


@pytest.mark.parametrize("full", [False, True])
def test_every_command_that_it_would_run_parses(full: bool, tmp_path: Path) -> None:
    data, lists = tmp_path / "UCF 101", tmp_path / "lists"
    for folder in (data, lists):
        folder.mkdir()
    out = tmp_path / "out"
    done = run("--dry-run", "--out", out, "--lists", lists, *(["--full"] if full else []), data)
    assert (done.returncode, done.stderr) == (0, "")
    assert not out.exists()
    commands = [shlex.split(line) for line in done.stdout.splitlines()]
    # What the script makes on its way, so that options that want a file find it.
    out.mkdir()
    (out / "results").mkdir()
    for words in commands:
        if words[0] in ("bench", "r3d-fast"):
            parse(words)
        else:
            assert words == [
                "env",
                "R3D_REQUIRE_GPU=1",
                "R3D_REQUIRE_PADDLE_GPU=1",
                "python",
                "-m",
                "pytest",
                "-m",
                "gpu",
            ]
    lines = [" ".join(words) for words in commands]
    assert sum(line.startswith("bench loader throughput") for line in lines) == 2
    trained = [words for words in commands if words[:3] == ["bench", "train", "throughput"]]
    cases = {(words[words.index("--precision") + 1], words[words.index("--layout") + 1]) for words in trained}
    assert cases == {(p, layout) for p in ("fp32", "bf16", "fp16") for layout in ("NCDHW", "NDHWC")}
    assert all(words[words.index("--device") + 1] == "gpu" for words in trained)
    assert any(words[:2] == ["r3d-fast", "train"] for words in commands) == full
    assert any(words[:2] == ["r3d-fast", "eval"] for words in commands) == full
    assert f"--lists {lists} --split 1" in lines[1]
    results = [words[words.index("--json") + 1] for words in commands if words[0] == "bench" and "--json" in words]
    assert len(set(results)) == len(results) == 9
    assert {Path(path).parent for path in results} == {out / "results"}


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        ([], 2, "no DATA: expected the folder of the videos; see --help"),
        (["--out"], 2, "--out: expected a value; see --help"),
        (["--ful", "x"], 2, "--ful: no such option; see --help"),
        (["x", "y"], 2, "y: expected one folder, x is given already"),
        (["missing-folder"], 3, "missing-folder: no such folder; expected one with videos"),
        (["--lists", "missing-folder", "."], 3, "missing-folder: no such folder; expected one with trainlist01.txt"),
    ],
)
def test_wrong_usage_is_one_line(arguments: list[str], code: int, message: str) -> None:
    done = run(*arguments)
    assert (done.returncode, done.stdout, done.stderr) == (code, "", f"v100.sh: {message}\n")


@pytest.mark.skipif(bool(probe_driver().gpus), reason="this machine has a GPU")
def test_without_a_gpu_it_stops_at_once(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    done = run("--out", tmp_path / "out", tmp_path / "data")
    assert (done.returncode, done.stdout) == (4, "")
    assert done.stderr.startswith("v100.sh: no GPU: ")
    assert done.stderr.count("\n") == 1
    assert list((tmp_path / "out" / "results").iterdir()) == []


@pytest.fixture
def commands(tmp_path: Path) -> dict[str, str]:
    """An environment in which a copy of the checkout's script finds stand-ins of all commands."""
    folder = tmp_path / "root" / ".venv" / "bin"
    folder.mkdir(parents=True)
    for name in ("bench", "r3d-fast"):
        (folder / name).write_text(COMMAND, encoding="utf-8")
        (folder / name).chmod(0o755)
    # python is needed to read the doctor's answer, but not to run the tests.
    (folder / "env").write_text(COMMAND, encoding="utf-8")
    (folder / "env").chmod(0o755)
    (tmp_path / "root" / "bench").mkdir()
    (tmp_path / "root" / "bench" / "v100.sh").write_text(SCRIPT.read_text(encoding="utf-8"), encoding="utf-8")
    (tmp_path / "data").mkdir()
    return {"CALLS": str(tmp_path / "calls"), "FAILING": "no such part", "CODE": "1", "ARCH": "80"}


@pytest.mark.parametrize(
    ("failing", "code", "failed"),
    [
        ("no such part", "1", []),
        ("loader throughput", "3", ["loader_cpu", "loader_gpu"]),
        ("--precision bf16", "4", ["train_gpu_NCDHW_bf16", "train_gpu_NDHWC_bf16"]),
        ("--precision fp32", "4", ["train_gpu_NCDHW_fp32", "train_gpu_NDHWC_fp32"]),
        ("eval --run", "5", ["eval"]),
    ],
)
def test_a_part_that_fails_leaves_the_others_their_results(
    failing: str, code: str, failed: list[str], commands: dict[str, str], tmp_path: Path
) -> None:
    script, out = tmp_path / "root" / "bench" / "v100.sh", tmp_path / "out"
    environment = {**os.environ, **commands, "FAILING": failing, "CODE": code}
    done = subprocess.run(
        ["bash", str(script), "--full", "--out", str(out), str(tmp_path / "data")],
        env=environment, capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == (1 if failed else 0), done.stderr
    if failed:
        assert done.stderr == f"v100.sh: failed: {' '.join(failed)}; their logs are in {out}/logs\n"
        assert "boom" in (out / "logs" / f"{failed[0]}.log").read_text()
    calls = Path(commands["CALLS"]).read_text().splitlines()
    assert len(calls) == 16  # 15 parts, and the doctor asked for a GPU
    assert calls[-1] == f"bench report {out}/results"
    left = 9 - sum(name.startswith(("loader", "train_gpu")) for name in failed)
    assert len(list((out / "results").glob("*.json"))) == left
    assert (out / "report.md").is_file()


@pytest.mark.parametrize(
    ("arch", "precisions"), [(61, ["fp32"]), (70, ["fp32", "fp16"]), (90, ["fp32", "bf16", "fp16"])]
)
def test_only_precisions_that_the_gpu_has_are_measured(
    arch: int, precisions: list[str], commands: dict[str, str], tmp_path: Path
) -> None:
    script, out = tmp_path / "root" / "bench" / "v100.sh", tmp_path / "out"
    command = ["bash", str(script), "--out", str(out), str(tmp_path / "data")]
    environment = {**os.environ, **commands, "ARCH": str(arch)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert f"precisions of this GPU: {' '.join(precisions)}\n" in done.stdout
    calls = [line.split() for line in Path(commands["CALLS"]).read_text().splitlines()]
    measured = [words[words.index("--precision") + 1] for words in calls if "--precision" in words]
    assert measured == [precision for precision in precisions for _ in range(2)]
