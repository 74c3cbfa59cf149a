"""`bench loader throughput` and `soak`, whole, on a few small videos: what they print, write and refuse."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from bench_process import REPO, bench
from clips import write_classes, write_stamped_video

from bench.reporting.results import load

FEW = ("--batches", "1", "--batch-size", "4", "--rounds", "5", "--workers", "1")


@pytest.fixture(scope="module")
def measured(videos: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[subprocess.CompletedProcess[str], Path]:
    folder = tmp_path_factory.mktemp("measured")
    done = bench(
        "loader", "throughput", "--data", videos, *FEW, "--json", folder / "a.json", "--plot", folder / "a.png"
    )
    assert done.returncode == 0, done.stderr
    return done, folder


def test_throughput_prints_rates_stages_and_what_was_left_out(
    measured: tuple[subprocess.CompletedProcess[str], Path],
) -> None:
    done, _ = measured
    for sampling in ("segments", "consecutive"):
        assert f"{sampling}, 1 worker, 5 rounds; x: how many times its clips/s r3d-fast gives" in done.stdout
    rows = re.findall(
        r"^(r3d-fast|r3d-fast, graph resize|decode only \(ceiling\)) +[\d.]+ +[\d.]+ - [\d.]+ .*$", done.stdout, re.M
    )
    assert rows == ["r3d-fast", "r3d-fast, graph resize", "decode only (ceiling)"] * 2
    assert len(re.findall(r"wall ms/clip: read [\d.]+, decode [\d.]+, convert [\d.]+, ship [\d.]+, augment [\d.]+, "
                          r"hand-over [\d.]+$", done.stdout, re.M)) == 4  # fmt: skip
    assert "left out: class1/empty.avi: empty" in done.stdout
    assert "left out: class0/v6.avi: truncated" in done.stdout
    assert "left out in all: 2 videos" in done.stdout
    assert re.search(r"first batch, seconds after the start of Python: \d", done.stdout)
    assert "round 5 of 5" in done.stderr


def test_json_holds_what_was_printed_and_no_path_of_this_machine(
    measured: tuple[subprocess.CompletedProcess[str], Path], videos: Path
) -> None:
    done, folder = measured
    report = load(folder / "a.json")
    assert [(run.sampling, run.workers, run.rounds) for run in report.runs] == [
        ("segments", 1, 5),
        ("consecutive", 1, 5),
    ]
    assert report.settings["data"] == videos.name
    assert report.settings["videos"] == 6
    assert [clip["path"] for clip in report.excluded] == ["class0/v6.avi", "class1/empty.avi"]
    for run in report.runs:
        ours = run["r3d-fast"]
        assert ours.frames == run["r3d-fast, graph resize"].frames == "identical"
        assert ours.bytes_per_clip is not None
        assert 0 < ours.bytes_per_clip < (videos / "class0" / "v0.avi").stat().st_size
        assert min(ours.cpu_seconds_per_clip) >= 0
        assert f"{run.ratio('decode only (ceiling)')[0]:.2f}" in done.stdout
    text = (folder / "a.json").read_text()
    assert str(videos.parent) not in text
    assert str(folder) not in text
    assert report.command.startswith("bench loader throughput --data videos --batches 1")
    assert (folder / "a.png").read_bytes().startswith(b"\x89PNG")


def test_several_worker_counts_are_a_run_each(videos: Path, tmp_path: Path) -> None:
    done = bench("loader", "throughput", "--data", videos, *FEW[:-1], "1,2", "--sampling", "consecutive", "--json",
                 tmp_path / "a.json", "--repeats", "2")  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert all("r3d-fast, 2 repeats" in run.names for run in load(tmp_path / "a.json").runs)
    assert [(run.sampling, run.workers) for run in load(tmp_path / "a.json").runs] == [
        ("consecutive", 1),
        ("consecutive", 2),
    ]


def test_other_decoders_are_measured_beside_ours_and_fewer_videos_if_told(tmp_path: Path) -> None:
    write_classes(tmp_path / "v", 8, codec="mjpeg")
    done = bench("loader", "throughput", "--data", tmp_path / "v", *FEW, "--sampling", "segments", "--videos", "6",
                 "--decoder", "pyav,dali", "--json", tmp_path / "a.json")  # fmt: skip
    assert done.returncode == 0, done.stderr
    report = load(tmp_path / "a.json")
    (run,) = report.runs
    assert report.settings["videos"] == 6
    assert "device" not in report.settings  # so that it compares with reports of before there was a choice
    assert run["r3d-fast, pyav decodes"].frames == "identical"
    # DALI converts colours more finely than PyAV.
    assert re.fullmatch(r"same clips \(mean difference up to [012]\.\d of 255\)", run["r3d-fast, dali decodes"].frames)
    assert run["r3d-fast, dali decodes"].bytes_per_clip is not None


@pytest.mark.slow
def test_without_data_bench_makes_its_own_clips(tmp_path: Path) -> None:
    done = bench("loader", "throughput", *FEW, "--sampling", "segments", "--json", "a.json", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    report = load(tmp_path / "a.json")
    assert (report.settings["data"], report.settings["videos"]) == ("bench's own clips", 64)
    assert [path.name for path in tmp_path.iterdir()] == ["a.json"]


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["--data", "missing"], 3, r"bench: missing: no such folder; expected one with videos, or no --data"),
        (["--data", "nothing"], 3, r"bench: nothing: no video file"),
        (["--data", "broken"], 3, r"bench: broken: none of the 2 videos can be read; first: a/0.avi: empty"),
        (["--peers", "decrod"], 2, r"bench: no peer 'decrod'; did you mean 'decord'\?"),
        (["--peers", "zzz"], 2, r"bench: no peer 'zzz'; expected one of: torchcodec exact, "),
        (["--workers", "0"], 2, r"bench: --workers 0: expected numbers of at least 1, each once, such as 2 or 1,2,4"),
        (["--workers", "2,2"], 2, r"bench: --workers 2,2: expected numbers"),
        (["--workers", "two"], 2, r"bench: --workers two: expected numbers"),
        (
            ["--decoder", "davi"],
            2,
            r"bench: --decoder davi: expected one or more of .*, each once",
        ),
        (["--threads", "0"], 2, r"bench: --threads 0: expected numbers of at least 1, each once"),
        (["--repeats", "0"], 2, r"bench: --repeats 0: expected numbers of at least 1, each once"),
        (["--rounds", "4"], 2, r"4 is not in the range x>=5"),
        (
            ["--json", "no/such/a.json"],
            2,
            r"bench: no/such/a.json: can't be written: there is no folder no/such",
        ),
        (["--plot", "a.gif"], 2, r"bench: a.gif: expected a name that ends in .png or .svg"),
        (["--data", "few", "--batch-size", "3"], 2, r"bench: loader.batch_size 3 is more than the 2 clips"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_bad_input_is_one_line_and_the_right_code(
    arguments: list[str], code: int, message: str, tmp_path: Path
) -> None:
    (tmp_path / "nothing").mkdir()
    for name, count in (("broken", 0), ("few", 20)):
        for k in range(2):
            folder = tmp_path / name / "ab"[k]
            folder.mkdir(parents=True)
            path = folder / f"{k}.avi"
            if count:
                write_stamped_video(path, num_frames=count)
            else:
                path.touch()
    done = bench("loader", "throughput", *arguments, cwd=tmp_path)
    assert done.returncode == code, done.stderr
    assert re.search(f"^{message}" if message.startswith("bench") else message, done.stderr, re.M), done.stderr
    assert "Traceback" not in done.stderr
    assert done.stdout == ""


def test_missing_peers_are_named_with_the_line_that_installs_them(videos: Path, tmp_path: Path) -> None:
    """In a Python that has none of their modules: it is told so, and measures the rest."""
    block = tmp_path / "blocked"
    block.mkdir()
    for module in ("torch", "torchcodec", "decord", "cv2"):
        (block / f"{module}.py").write_text("raise ImportError('not here')\n")
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(block), str(REPO)])}
    command = [sys.executable, "-m", "bench.cli", "loader", "throughput", "--data", str(videos), *FEW, "--sampling",
               "segments", "--peers"]  # fmt: skip
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    for name, line in (
        ("torchcodec exact", r"pip install torch torchcodec \(and FFmpeg's shared libraries\)"),
        ("decord", "pip install torch decord"),
        ("OpenCV full decode", "pip install torch opencv-python-headless"),
        ("PyAV naive", "pip install torch"),
    ):
        assert re.search(f"^not installed: {name}: {line}$", done.stdout, re.M)


def test_soak_says_what_grows(videos: Path, tmp_path: Path) -> None:
    done = bench("loader", "soak", "--data", videos, "--clips", "1000", "--workers", "1", "--json", tmp_path / "a.json")
    assert done.returncode == 0, done.stderr
    values: dict[str, Any] = json.loads((tmp_path / "a.json").read_text())
    assert values["kind"] == "loader soak"
    assert values["clips"] >= 1000
    assert len(values["memory growth, MB per 1,000 clips"]["workers"]) == 1
    low, high = values["open files, lowest to highest"]["main process"]
    assert low == high > 0
    assert "memory growth, MB per 1,000 clips" in done.stdout
