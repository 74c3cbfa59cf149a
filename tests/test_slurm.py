"""The scripts in examples/slurm: as they stand, and run with stand-ins for srun and scontrol."""

from __future__ import annotations

import re
import shlex
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import ranks
import slurm
import tiny
from pages import called, found_command
from runs import records, wait_for_step

from pipelines.index.video_index import VideoIndex
from r3d_fast.cli import cli

SCRIPTS = sorted((tiny.REPO / "examples" / "slurm").glob("*.sh"))
ONE_NODE, TWO_NODES = SCRIPTS
LIMIT = 240.0


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory) -> VideoIndex:
    return tiny.make_tiny(tmp_path_factory.mktemp("slurm"))


@pytest.fixture
def programs(tmp_path: Path) -> Path:
    return slurm.programs(tmp_path / "bin")


@pytest.fixture
def number() -> int:
    """A job for which the script for two nodes takes a port that is free."""
    return ranks.free_port()


def name(path: Path) -> str:
    return path.name


@pytest.mark.parametrize("script", SCRIPTS, ids=name)
def test_shellcheck_finds_nothing_to_say(script: Path) -> None:
    command = [Path(sys.executable).parent / "shellcheck", "--enable=quote-safe-variables", script]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "")


@pytest.mark.parametrize("script", SCRIPTS, ids=name)
def test_the_options_of_the_job_stand_where_sbatch_reads_them(script: Path) -> None:
    head, _, body = script.read_text(encoding="utf-8").partition("\n\n")
    assert head.startswith("#!/bin/bash\n")
    assert all(line.startswith("#") for line in head.splitlines())
    assert "#SBATCH" not in body
    options = dict(
        option.partition("=")[::2] for line in re.findall(r"^#SBATCH (.*)$", head, re.M) for option in line.split()
    )
    assert options["--requeue"] == ""
    assert options["--open-mode"] == "append"  # the log of the job before is kept
    assert options["--nodes"] == ("1" if script == ONE_NODE else "2")
    assert options["--signal"] == ("B:USR1@120" if script == ONE_NODE else "TERM@120")


@pytest.mark.parametrize("script", SCRIPTS, ids=name)
def test_the_command_of_a_script_exists_with_the_options_that_its_first_lines_give(script: Path) -> None:
    text = script.read_text(encoding="utf-8")
    (usage,) = re.findall(rf"sbatch examples/slurm/{script.name} (.*)$", text, re.M)
    # Without the comments, and with what stands in for "$@".
    code = re.sub(r"^#.*$", "", text, flags=re.M).replace('"$@"', usage)
    (words,) = (words for words in called(code) if words[0] == "r3d-fast")
    command, rest = found_command(cli, words[1:])
    assert command.make_context("train", rest).params["resume"] == "auto"


def test_two_jobs_that_begin_on_one_node_take_ports_of_their_own(programs: Path, tmp_path: Path) -> None:
    # Paddle's launchers would wait for each other for ever at a port that they share.
    (programs / "python").write_text('#!/bin/sh\nshift 2; echo "$2"\n', encoding="utf-8")
    masters = [slurm.start(TWO_NODES, tmp_path, programs, 1, number).communicate()[0] for number in (41_277, 41_278)]
    assert masters == ["127.0.0.2:21277\n", "127.0.0.2:21278\n"]


@pytest.mark.slow
def test_two_nodes_stop_at_a_signal_are_queued_again_and_go_on(
    index: VideoIndex, programs: Path, number: int, tmp_path: Path
) -> None:
    options = ["-c", "demo", *tiny.options(tiny.overrides(index, "train.epochs=6", "model.width=8")), "--run", "run"]
    job = slurm.start(TWO_NODES, tmp_path, programs, 2, number, *options)
    wait_for_step(tmp_path / "run", 2, job)
    # At least a launcher and a rank on each node, and their decoding processes.
    assert slurm.signal_all(tmp_path, signal.SIGTERM, steps=True) >= 4
    output, _ = job.communicate(timeout=LIMIT)
    assert job.returncode in (15, 75), output
    assert slurm.requeued(tmp_path) == [f"requeue {number}"]
    stopped = len(records(tmp_path / "run", "train"))
    assert stopped < 24
    job = slurm.start(TWO_NODES, tmp_path, programs, 2, number, *options)
    output, _ = job.communicate(timeout=LIMIT)
    assert job.returncode == 0, output
    assert slurm.requeued(tmp_path) == [f"requeue {number}"]
    assert [record["step"] for record in records(tmp_path / "run", "train")] == list(range(1, 25))
    assert {path.name for path in (tmp_path / f"ranks-{number}").iterdir()} == {"0", "1"}


@pytest.mark.slow
def test_one_node_stops_at_a_signal_is_queued_again_and_goes_on(
    index: VideoIndex, programs: Path, number: int, tmp_path: Path
) -> None:
    options = ["-c", "demo", *tiny.options(tiny.overrides(index, "train.epochs=6", "model.width=8")), "--run", "run"]
    job = slurm.start(ONE_NODE, tmp_path, programs, 1, number, *options)
    wait_for_step(tmp_path / "run", 2, job)
    job.send_signal(signal.SIGUSR1)
    output, _ = job.communicate(timeout=LIMIT)
    assert job.returncode == 75, output
    assert slurm.requeued(tmp_path) == [f"requeue {number}"]
    assert len(records(tmp_path / "run", "train")) < 24
    job = slurm.start(ONE_NODE, tmp_path, programs, 1, number, *options)
    output, _ = job.communicate(timeout=LIMIT)
    assert job.returncode == 0, output
    assert [record["step"] for record in records(tmp_path / "run", "train")] == list(range(1, 25))


@pytest.mark.parametrize("script", SCRIPTS, ids=name)
@pytest.mark.parametrize("code", [0, 2, 4])
def test_a_job_that_ends_by_itself_is_not_queued_again(
    code: int, script: Path, programs: Path, number: int, tmp_path: Path
) -> None:
    for program in ("r3d-fast", "python"):  # the second starts the first where there are two nodes
        (programs / program).write_text(f"#!/bin/sh\nexit {code}\n", encoding="utf-8")
    job = slurm.start(script, tmp_path, programs, 2, number)
    output, _ = job.communicate(timeout=LIMIT)
    assert (job.returncode, output) == (code, "")
    assert slurm.requeued(tmp_path) == []


@pytest.mark.parametrize("script", SCRIPTS, ids=name)
def test_a_cancelled_job_is_not_queued_again(script: Path, programs: Path, number: int, tmp_path: Path) -> None:
    ready = tmp_path / "ready"
    waits = f"#!/bin/bash\ntrap 'exit 75' TERM\ntouch {shlex.quote(str(ready))}\nwhile :; do sleep 0.1; done\n"
    for program in ("r3d-fast", "python"):
        (programs / program).write_text(waits, encoding="utf-8")
    job = slurm.start(script, tmp_path, programs, 1, number)
    while not ready.exists():
        assert job.poll() is None
    slurm.signal_all(tmp_path, signal.SIGTERM, steps=False)
    job.communicate(timeout=LIMIT)
    assert job.returncode == -signal.SIGTERM
    assert slurm.requeued(tmp_path) == []
