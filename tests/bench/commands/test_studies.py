"""`bench studies`: each study by its command, on as little as it takes."""

from __future__ import annotations

import json
import re
from importlib.util import find_spec
from pathlib import Path

import pytest
import tiny
from bench_process import bench
from clips import write_classes

from bench.reporting.tables import load_folder, tables

SMALL = ("model.name=r3d10", "model.width=4", "augment.size_px=16", "clip.num_frames=4")


@pytest.mark.slow
def test_cpu_measures_every_contender_and_ours_gives_what_plain_paddle_gives() -> None:
    done = bench("studies", "cpu", "--mode", "eval", "--rounds", "5", "--threads", "2", "--json", "-")
    assert done.returncode == 0, done.stderr
    values = json.loads(done.stdout)
    assert values["command"] == "bench studies cpu --mode eval --rounds 5 --threads 2 --json -"
    names = ["paddle", "r3d-fast", *(["torch"] if find_spec("torch") else [])]
    assert [key for key in values if key.startswith("eval, ")] == [f"eval, {name}" for name in names]
    assert all(len(values[f"eval, {name}"]["seconds a step"]) == 5 for name in names)
    assert values["eval, paddle"]["x plain Paddle, median, low, high"] == [1.0, 1.0, 1.0]
    assert 0 < values["eval: difference of the first values"] < 1e-4  # the same values, not the same path
    assert len(re.findall(r"^eval   \S+ +\d+\.\d\d clips/s +\d+\.\d\d x plain Paddle \(", done.stderr, re.M)) == len(
        names
    )


def test_models_measures_those_that_are_named(tmp_path: Path) -> None:
    done = bench("studies", "models", "r3d10", "--rounds", "5", "--json", tmp_path / "a.json")
    assert done.returncode == 0, done.stderr
    assert re.fullmatch(r"r3d10 +[\d.]+ clips/s  \([\d.]+ to [\d.]+\)\n", done.stdout)
    assert "| r3d10, clips/s |" in tables(load_folder(tmp_path))


def test_predict_measures_the_videos_of_a_folder(tmp_path: Path) -> None:
    videos, model = write_classes(tmp_path / "videos", 4), tiny.untrained(tmp_path / "run")
    results = tmp_path / "results"
    results.mkdir()
    done = bench(
        "studies", "predict", "--data", videos, "--model", model, "--rounds", "2", "--json", results / "a.json"
    )
    assert done.returncode == 0, done.stderr
    assert re.search(r"^predict / ceiling: \d\.\d+ \(.*\), 2 rounds$", done.stdout, re.M)
    text = tables(load_folder(results))
    assert "| command | bench studies predict --data videos --model run --rounds 2 --json a.json |" in text
    assert "| videos | 4 |" in text


@pytest.mark.slow
def test_predict_makes_its_own_videos(tmp_path: Path) -> None:
    model = tiny.untrained(tmp_path / "run")
    done = bench("studies", "predict", "--model", model, "--rounds", "1", "--json", "-", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    values = json.loads(done.stdout)
    assert (values["data"], values["videos"]) == ("bench's own clips", 64)
    assert [path.name for path in tmp_path.iterdir()] == ["run"]


@pytest.mark.slow
def test_resume_kills_a_run_that_ends_as_if_nothing_had_happened(tmp_path: Path) -> None:
    words = [part for override in SMALL for part in ("-o", override)]
    done = bench(
        "studies", "resume", "--kills", 2, "--steps", 2, "--batch-size", 2, *words, "--json", tmp_path / "resume.json"
    )
    assert done.returncode == 0, done.stderr
    assert "kill 2: after step" in done.stderr
    values = json.loads((tmp_path / "resume.json").read_text(encoding="utf-8"))
    assert values["kills"] == 2
    for proof in ("weights and moments bit-equal", "best weights bit-equal", "every step once", "metrics equal"):
        assert values[proof] is True, proof
    assert values["seconds of a step"]["low"] > 0
    assert values["share of a step that handing over takes"] > 0
    assert "| every step once | true |" in tables(load_folder(tmp_path))


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["cpu", "--rounds", "1"], 2, "bench: Invalid value for '--rounds': 1 is not in the range x>=5 (see "),
        (["cpu", "--threads", "none"], 2, "bench: Invalid value for '--threads': 'none' is not a valid integer"),
        (["models", "--rounds", "1"], 2, "bench: Invalid value for '--rounds': 1 is not in the range x>=5 (see "),
        (["models", "r3d81"], 2, "bench: no model 'r3d81'; expected one of: r3d18_reference, r3d10, "),
        (["models", "--json", "no/a.json"], 2, "bench: no/a.json: can't be written: there is no folder no"),
        (["predict", "--rounds", "0"], 2, "bench: Invalid value for '--rounds': 0 is not in the range x>=1 (see "),
        (
            ["predict", "-c", "dema"],
            2,
            "bench: dema: no such config; expected a file that ends in .yaml, or a shipped config: did you mean demo?",
        ),
        (["predict", "--model", "nowhere"], 2, "bench: nowhere: no such file or folder; expected a run folder"),
        (["predict", "-c", "demo", "--data", "nowhere"], 3, "bench: nowhere: no such folder; expected one with videos"),
        (["resume", "--kills", "0"], 2, "bench: Invalid value for '--kills': 0 is not in the range x>=1 (see "),
        (["resume", "-o", "model.widht=8"], 2, "bench: -o model.widht=8: unknown key; did you mean width?"),
        (["sums"], 2, "bench: No such command 'sums'"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_bad_input_is_one_line_and_the_right_code(
    arguments: list[str], code: int, message: str, tmp_path: Path
) -> None:
    done = bench("studies", *arguments, cwd=tmp_path)
    assert (done.returncode, done.stdout) == (code, ""), done.stderr
    said = [line for line in done.stderr.splitlines() if line.startswith("bench: ")]
    assert len(said) == 1, done.stderr
    assert message in said[0]
    assert "Traceback" not in done.stderr
    assert list(tmp_path.iterdir()) == []
