"""`bench gpu` whole, on a made-up V100 whose processes stand for measurements, and fail in turn."""

from __future__ import annotations

import fcntl
import json
import os
import signal
import subprocess
import sys
import tarfile
from pathlib import Path
from typing import Any

import pytest
from bench_process import REPO
from gpu_stand_ins import REAL_PLAN
from small_disk import mounted
from waiting import is_gone, wait_until

from bench.gpu.archive import archive_path
from bench.gpu.plan import V100, GpuSettings

VIDEOS = 70
SUPPORT = REPO / "tests" / "support" / "jobs"
PARTS = [part.name for part in REAL_PLAN(GpuSettings(Path(), Path()), V100)]


def start(
    out: Path, *arguments: object, words: dict[str, str] | None = None, data: Path | None = None, **more: str
) -> subprocess.Popen[str]:
    data = data or next(folder for folder in out.parents if folder.is_dir()) / "data"
    (data / "a").mkdir(parents=True, exist_ok=True)
    for number in range(VIDEOS):
        (data / "a" / f"{number}.avi").touch()
    path = os.pathsep.join([str(REPO), str(SUPPORT)])
    environment = {**os.environ, "PYTHONPATH": path, "STAND_INS": json.dumps(words or {}), **more}
    command = [sys.executable, str(SUPPORT / "gpu_stand_ins.py"), "gpu", data, "--out", out, *arguments]
    pipe = subprocess.PIPE
    return subprocess.Popen(list(map(str, command)), env=environment, stdout=pipe, stderr=pipe, text=True)


def run(
    out: Path, *arguments: object, words: dict[str, str] | None = None, data: Path | None = None, **more: str
) -> tuple[int, str, str]:
    process = start(out, *arguments, words=words, data=data, **more)
    stdout, stderr = process.communicate(timeout=120)
    assert "Traceback" not in stderr, stderr
    return process.returncode, stdout, stderr


def archived(out: Path) -> set[str]:
    with tarfile.open(archive_path(out)) as tar:
        return {name.partition("/")[2] for name in tar.getnames()}


def states(out: Path) -> dict[str, str]:
    parts: dict[str, dict[str, Any]] = json.loads((out / "steps.json").read_text())
    return {name: part["state"] for name, part in parts.items()}


def test_all_parts_run_in_order_and_leave_a_page_and_an_archive(tmp_path: Path) -> None:
    out = tmp_path / "out"
    code, stdout, stderr = run(out)
    assert code == 0, stderr
    assert list(states(out)) == PARTS
    assert set(states(out).values()) == {"done"}
    for number, name in enumerate(PARTS, 1):
        assert f"{number}/{len(PARTS)} {name}, at most " in stderr
    assert "processes, at most " in stderr
    assert (out / "report.txt").read_text() == stdout.lstrip("\n")
    assert "decoder (loader.decoder): pyav" in stdout
    names = archived(out)
    assert {"report.txt", "steps.json", "results/kernels.json", "logs/parity.log"} <= names
    assert {f"logs/{name}.log" for name in PARTS} <= names
    assert f"archive: {archive_path(out)}" in stderr


@pytest.mark.parametrize("name", PARTS)
def test_a_part_that_fails_leaves_the_others_their_results(name: str, tmp_path: Path) -> None:
    out = tmp_path / "out"
    code, _, stderr = run(out, words={name: "fail"})
    assert code == 1
    assert {part: state for part, state in states(out).items() if state != "done"} == {name: "failed"}
    log = out / "logs" / f"{name}.log"
    assert stderr.splitlines()[-1] == f"failed: {name} (code 4): boom: no such kernel; log: {log}"
    assert "boom" in log.read_text()
    assert f"logs/{name}.log" in archived(out)
    assert f"{name}: failed with code 4: boom: no such kernel" in " ".join((out / "report.txt").read_text().split())


def test_one_that_crashes_and_one_over_its_time_stop_nobody_else(tmp_path: Path) -> None:
    """What the one over its time had written stays, and nothing of its processes, though it ignores Ctrl-C."""
    out = tmp_path / "out"
    code, _, stderr = run(out, words={"parity": "crash", "loader_64": "hang"})
    assert code == 1
    left = {name: state for name, state in states(out).items() if state != "done"}
    assert left == {"parity": "failed", "loader_64": "over its time"}
    assert "failed: parity (code -6): its process was ended by signal 6 (Aborted); measuring; log: " in stderr
    assert "failed: loader_64 (over its time): ended after its 0.05 minutes: measuring; log: " in stderr
    assert json.loads((out / "results" / "loader_64.json").read_text())["runs"]
    wait_until(lambda: is_gone(int((out / "results" / "loader_64.json.child").read_text())))


def test_it_goes_on_and_runs_again_what_failed_or_is_named(tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert run(out, words={"kernels": "fail"})[0] == 1
    code, _, stderr = run(out)
    assert code == 0, stderr
    assert "done already, and kept: machine, doctor, kernels_persistent, parity, videos, loader_64, " in stderr
    assert "; to run steps again, name them, as --steps machine" in stderr
    assert "1/1 kernels, at most" in stderr
    assert "\n1 process, at most 5 min in all; " in stderr
    code, _, stderr = run(out, "--steps", "machine,loader")
    assert code == 0, stderr
    assert [line.split()[1].rstrip(",") for line in stderr.splitlines() if "/4 " in line] == [
        "machine",
        "videos",
        "loader_64",
        "loader_16",
    ]
    assert list(states(out)) == PARTS
    _, _, stderr = run(out, "--videos", "65")  # what is measured on other videos is measured again
    assert "kept: machine, doctor, kernels, kernels_persistent, parity, tests; " in stderr


@pytest.mark.parametrize(
    ("number", "code", "says"),
    [
        (signal.SIGINT, 130, "stopped by Ctrl-C; the same command goes on from here"),
        (signal.SIGTERM, 75, "bench: stopped by Terminated; the same command goes on from here"),
        (signal.SIGHUP, 75, "bench: stopped by Hangup; the same command goes on from here"),
    ],
)
def test_a_signal_ends_the_part_and_the_archive_is_written(
    number: signal.Signals, code: int, says: str, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    process = start(out, words={"kernels": "wait"}, STARTED=str(tmp_path / "pid"))
    child = out / "results" / "kernels.json.child"
    wait_until(lambda: child.is_file() and bool(child.read_text()))
    os.kill(int((tmp_path / "pid").read_text()), number)
    stdout, stderr = process.communicate(timeout=60)
    assert process.returncode == code, stderr
    assert "Traceback" not in stderr
    assert says in stderr.splitlines()
    assert stdout == ""
    assert states(out) == {"machine": "done", "doctor": "done", "kernels": "interrupted"}
    assert {"report.txt", "results/machine.json", "logs/kernels.log"} <= archived(out)
    wait_until(lambda: is_gone(int(child.read_text())))
    code, _, stderr = run(out)
    assert code == 0, stderr
    assert f"1/{len(PARTS) - 2} kernels" in stderr


def test_results_of_other_videos_are_told(tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert run(out, "--steps", "machine,parity")[0] == 0
    (tmp_path / "more").mkdir()
    code, stdout, stderr = run(out, "--steps", "loader", data=tmp_path / "more")
    assert code == 0, stderr
    assert "- OF AN EARLIER RUN, of other videos or with other options: parity; run it again" in stdout
    _, stdout, _ = run(out, "--steps", "parity", data=tmp_path / "more")
    assert "EARLIER" not in stdout


def test_killed_it_takes_the_part_with_it(tmp_path: Path) -> None:
    out = tmp_path / "out"
    process = start(out, words={"kernels": "wait"}, STARTED=str(tmp_path / "pid"))
    own = out / "results" / "kernels.json.own"
    wait_until(lambda: own.is_file() and bool(own.read_text()))
    os.kill(int((tmp_path / "pid").read_text()), signal.SIGKILL)
    process.communicate(timeout=60)
    wait_until(lambda: is_gone(int(own.read_text())))
    os.kill(int((out / "results" / "kernels.json.child").read_text()), signal.SIGKILL)  # which watches nobody
    code, _, stderr = run(out)
    assert code == 0, stderr
    assert f"1/{len(PARTS) - 2} kernels" in stderr


def test_where_nothing_can_be_written_it_says_so_at_once(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    code, stdout, stderr = run(tmp_path / "file" / "out")
    assert (code, stdout) == (2, "")
    expected = f"bench: {tmp_path}/file/out: can't be written: a part of the path is a file; choose another --out"
    assert expected in stderr.splitlines()[-1]


def test_on_a_full_disk_it_stops_and_says_so(tmp_path: Path) -> None:
    with mounted(tmp_path / "disk", "size=64k") as disk:
        (disk / "rest").write_bytes(bytes(40_000))
        code, _, stderr = run(disk / "out")
    assert code == 2, stderr
    assert "No space left on device" in stderr
    assert stderr.splitlines()[-1].startswith("bench: ")


def test_of_a_paddle_that_can_not_use_the_card_only_dalis_half_is_measured(tmp_path: Path) -> None:
    out = tmp_path / "out"
    code, _, _ = run(out, "--steps", "doctor")
    assert code == 0
    doctor = json.loads((out / "results" / "doctor.json").read_text())
    doctor["device"], doctor["checks"][0]["found"] = "", "paddlepaddle-gpu 2.6.2: no code for sm_90"
    (out / "results" / "doctor.json").write_text(json.dumps(doctor))
    code, _, stderr = run(out, "--steps", "kernels,parity,loader,train")
    assert code == 4
    assert "kernels: left out: Paddle can't use this GPU: paddlepaddle-gpu 2.6.2: no code for sm_90" in stderr
    by_state = states(out)
    assert {name for name, state in by_state.items() if state == "done"} == {
        "doctor", "parity", "videos", "loader_64", "loader_16",
    }  # fmt: skip


def test_a_folder_holds_the_results_of_one_card_and_serves_one_run(tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert run(out, "--steps", "machine")[0] == 0
    card = json.loads((out / "card.json").read_text())
    (out / "card.json").write_text(json.dumps({**card, "name": "NVIDIA A100"}))
    code, stdout, stderr = run(out)
    assert (code, stdout) == (2, "")
    assert stderr.endswith(
        f"bench: {out}: holds what was found on NVIDIA A100, here is Tesla V100-SXM2-16GB; choose another --out\n"
    )
    (out / "card.json").write_text(json.dumps({**card, "name": "", "problem": "no driver"}))  # since then installed
    with (out / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        code, _, stderr = run(out)
    assert code == 2
    assert f"bench: {out}: another bench gpu is at work there; wait for it, or choose another --out" in stderr
    code, _, stderr = run(out)
    assert code == 0
    assert f"1/{len(PARTS)} machine" in stderr  # what the machine said without its driver counts no more


def test_full_trains_the_reference_after_the_rest(tmp_path: Path) -> None:
    code, _, stderr = run(tmp_path / "out", "--full")
    assert code == 0, stderr
    assert list(states(tmp_path / "out")) == [*PARTS, "full_index", "full_train", "full_eval"]
    assert "then, for as long as they take: full_index, full_train, full_eval" in stderr


def test_what_the_doctor_would_do_is_said_before_the_rest_begins(tmp_path: Path) -> None:
    code, _, stderr = run(tmp_path / "out", "--steps", "doctor,kernels", words={"doctor": "no dali"})
    assert code == 0, stderr
    lines = stderr.splitlines()
    place = lines.index("    DALI: DALI is not installed: to do: pip install nvidia-dali-cuda120")
    assert "2/3 kernels" in lines[place + 1]
    assert "to do: " not in run(tmp_path / "out", "--steps", "doctor")[2]


def test_without_pytest_the_tests_are_left_out(tmp_path: Path) -> None:
    code, _, stderr = run(tmp_path / "out", "--steps", "tests", WITHOUT="pytest")
    assert code == 4
    assert "1/1 tests: left out: pytest is not installed: pip install -e '.[test]' in the checkout\n" in stderr


def test_a_link_to_no_folder_is_named(tmp_path: Path) -> None:
    (tmp_path / "out").symlink_to("gone")
    code, _, stderr = run(tmp_path / "out")
    assert (code, stderr.splitlines()[-1]) == (
        2,
        f"bench: {tmp_path}/out: is a link to gone, which isn't there; make it, or choose another --out",
    )
