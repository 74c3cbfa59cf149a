"""`bench gpu` as a user calls it on a machine without a GPU: what runs there is really run."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest
from bench_process import bench
from clips import write_classes

from bench.gpu.archive import archive_path
from pipelines.machine.nvidia import probe_driver

pytestmark = pytest.mark.skipif(bool(probe_driver().gpus), reason="this machine has a GPU")


@pytest.mark.slow
def test_what_needs_no_gpu_runs_and_the_rest_is_left_out(tmp_path: Path) -> None:
    data = write_classes(tmp_path / "videos", 6, codec="mjpeg", num_frames=20)
    out = tmp_path / "out"
    done = bench("gpu", data, "--out", out, "--steps", "machine,doctor,kernels,parity,loader,tests,train")
    assert done.returncode == 4, done.stderr
    parts = json.loads((out / "steps.json").read_text())
    ran = {name for name, part in parts.items() if part["state"] == "done"}
    assert ran == {"machine", "doctor", "kernels", "parity"}
    assert all(part["state"] == "left out" for name, part in parts.items() if name not in ran)
    assert "loader_64: left out: no GPU: " in done.stderr
    assert "videos of DATA: 6 right" in done.stdout
    assert done.stdout.startswith("\nr3d-fast on a machine without a usable GPU\n")
    with tarfile.open(archive_path(out)) as tar:
        names = {name.partition("/")[2] for name in tar.getnames()}
        assert {f"results/{name}.json" for name in ran} | {"report.txt", "steps.json", "logs/doctor.log"} <= names
        for member in tar.getmembers():
            file = tar.extractfile(member)
            assert file is not None
            assert str(tmp_path) not in file.read().decode()


def test_without_a_gpu_it_stops_at_once(tmp_path: Path) -> None:
    data = write_classes(tmp_path / "data", 2)
    for steps in ((), ("--steps", "loader,train")):
        done = bench("gpu", data, "--out", tmp_path / "out", *steps)
        assert (done.returncode, done.stdout) == (4, "")
        said, few, *problem, last = done.stderr.splitlines()
        assert said == f"{data}: 2 videos, of which 2 are for measuring speed"
        assert few == "too few for batches of 64: those measured are of 2, and sizes of them not compared"
        assert problem[0].startswith("bench: no GPU: ")
        assert [line[:14] for line in problem[1:]] in ([], ["bench: to do: "])
        assert last == "bench: what needs no GPU is measured with: --steps machine,doctor,parity"
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        ([], 2, "Missing argument 'DATA'"),
        (["empty"], 3, "empty: no video file; looked for "),
        (["missing"], 3, "missing: no such folder; expected one with videos"),
        ([".", "--lists", "missing"], 3, "missing: no such folder; expected one with trainlist01.txt"),
        ([".", "--steps", "kernel"], 2, "--steps kernel: expected one or more of machine, doctor, kernels, parity"),
        ([".", "--videos", "1"], 2, "1 is not in the range x>=64"),
        ([".", "--split", "0"], 2, "0 is not in the range x>=1"),
        ([".", "x"], 2, "unexpected extra argument"),
        ([".", "--ful"], 2, "--ful"),
        (["data", "--out", "file", "--steps", "machine"], 2, "file: can't be written: a part of the path is a file"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_bad_input_is_one_line_and_the_right_code(
    arguments: list[str], code: int, message: str, tmp_path: Path
) -> None:
    (tmp_path / "file").touch()
    write_classes(tmp_path / "data", 2)
    (tmp_path / "empty").mkdir()
    done = bench("gpu", *arguments, cwd=tmp_path)
    assert (done.returncode, done.stdout) == (code, "")
    assert message in done.stderr.splitlines()[-1]
    assert done.stderr.splitlines()[-1].startswith("bench: ")


def test_dry_run_prints_the_commands_and_does_nothing(tmp_path: Path) -> None:
    data = write_classes(tmp_path / "data", 64)
    done = bench("gpu", data, "--out", tmp_path / "out", "--dry-run", "--full")
    assert done.returncode == 0
    assert re.fullmatch(r".*: 64 videos.*\nno GPU here \(.*\): these are the commands for a V100\n", done.stderr)
    lines = done.stdout.splitlines()
    assert f"mkdir -p {tmp_path}/out/results" in lines
    assert sum(f"{sys.executable} -m bench.cli loader throughput" in line for line in lines) == 2
    assert sum(f"{sys.executable} -m bench.cli train throughput" in line for line in lines) == 6
    assert any(line.startswith(f"{sys.executable} -m r3d_fast eval --run") for line in lines)
    subprocess.run(["sh", "-nc", done.stdout], check=True)
    assert not (tmp_path / "out").exists()
