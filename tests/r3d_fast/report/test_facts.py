from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import run_files
import tiny
import yaml

from pipelines.checks.index_check import check_index
from pipelines.index.video_index import VideoIndex
from r3d_fast.config.config import Config, config_diff, dump_config, load_config
from r3d_fast.report.facts import (
    data_facts,
    differences,
    environment_facts,
    progress_of,
    run_facts,
    shown_command,
    training_counts,
)
from r3d_fast.runs.history import RunHistory, read_history
from r3d_fast.runs.metrics_file import Record


@pytest.mark.parametrize("name", ["demo", "ucf101_r3d18", "ucf101_resnext101_finetune"])
def test_what_differs_from_the_defaults_is_all_that_does(name: str) -> None:
    config = load_config(name)
    found = differences(yaml.safe_load(dump_config(config)))
    expected = [line for line in config_diff(Config(), config) if not line.startswith("augment.layout")]
    assert [f"{key}: {default} -> {here}" for key, default, here in found] == expected


@pytest.mark.parametrize("config", [{}, {"data": None}, {"x": {"y": 1}}, {"train": [1]}, {3: {4: 5}}])
def test_unknown_settings_are_shown_as_they_are(config: Any) -> None:
    found = differences(config)
    assert found == ([("x.y", "null", "1")] if "x" in config else [("3.4", "null", "5")] if 3 in config else [])


def test_the_command_is_as_one_types_it() -> None:
    words = ["/opt/my env/bin/r3d-fast", "train", "my videos", "-o", "model.width=8", "it's"]
    assert shown_command({"command": words}) == "r3d-fast train 'my videos' -o model.width=8 'it'\"'\"'s'"
    assert shown_command({"command": ["script.py", "a b"]}) == "script.py 'a b'"
    for damaged in ({}, {"command": "x"}, {"command": []}, {"command": [1]}):
        assert shown_command(damaged) == ""


def test_how_far_a_run_is(tmp_path: Path) -> None:
    history = read_history(run_files.write_run(tmp_path / "run", ["a", "b"], epochs=3))
    assert progress_of(history, running=False) == "Ended after 3 epochs, 60 steps."
    halfway = RunHistory(history.path, history.records[:30], history.config)
    assert progress_of(halfway, running=True) == "Running: in epoch 2 of 3, 29 steps taken."
    assert progress_of(halfway, running=False) == "Ended in epoch 2 of 3, 29 steps taken."
    assert progress_of(RunHistory(history.path), running=True) == "No step has been taken yet."
    facts = dict(run_facts(history, running=False))
    assert facts["time"] == "0:20: 0:15 for steps, 0:04 for evaluations"
    assert facts["command"].startswith("r3d-fast train -c 'my config' --run ")
    assert facts["began with"] == "random weights"
    clips = sum(record["count"] for record in history.steps)
    assert facts["speed"].startswith(
        f"{clips / sum(record['seconds'] for record in history.steps):.1f} clips/s (all clips"
    )


def test_the_speed_of_a_run_is_all_clips_by_all_seconds() -> None:
    def step(count: int | None, seconds: float, wait: float | None = 0.5) -> Record:
        return {"kind": "train", "step": 1, "count": count, "seconds": seconds, "wait_share": wait}

    def said(*steps: Record) -> str | None:
        return dict(run_facts(RunHistory(Path("run"), steps), running=False)).get("speed")

    whole = "3.0 clips/s (all clips by all seconds of the steps)"
    assert (
        said(step(8, 2.0, 0.0), step(8, 1.0, 0.0), step(2, 3.0, 0.5))
        == f"{whole}, 25.0\xa0% of the time waiting for clips"
    )
    assert said(step(6, 2.0, None)) == whole
    assert said(step(None, 2.0), step(8, 0.0)) is None


def test_the_batch_is_that_of_the_plan() -> None:
    config = {"clip": {"num_frames": 8}, "augment": {"size_px": 48}, "loader": {"batch_size": 8}}
    for plan, batch in (({"work": {"batch": 6}}, 6), ({"work": 3}, 8), ({}, 8)):
        facts = dict(run_facts(RunHistory(Path("run"), config=config, plan=plan), running=False))
        assert facts["clips"] == f"8 frames of 48x48 px, {batch} a batch"


def test_the_data_are_described_by_their_index_and_check(index: VideoIndex, tmp_path: Path) -> None:
    run = run_files.write_run(tmp_path / "run", index.classes, index=index)
    history = read_history(run)
    facts = dict(data_facts(history, index, check_index(index)))
    assert facts["videos"] == str(index.root)
    assert facts["splits"] == "train: 24 videos, test: 16 videos"
    assert facts["classes"] == "8, each with 3 training videos"
    assert facts["sizes"] == "32x32 (40)"
    assert training_counts(history, index) == dict.fromkeys(index.classes, 3)
    assert dict(data_facts(history, None, None)) == {"videos": str(index.root), "index": str(index.path),
                                                     "evaluated": "1 clip a video"}  # fmt: skip


def test_uneven_classes_are_said(tmp_path: Path) -> None:
    index = tiny.make_tiny(tmp_path)
    for extra in ("left", "left", "up"):
        source = next((tmp_path / "data" / "train" / extra).glob("*.avi"))
        for number in range(4):
            (source.parent / f"more{number}.avi").write_bytes(source.read_bytes())
    index = VideoIndex.build(index.root, index=index.path, workers=0)
    history = RunHistory(tmp_path, config={"data": {"train_split": "train"}})
    said = dict(data_facts(history, index, None))["classes"]
    assert said == "8; of the training videos 7 (21.9\xa0%) are of the largest, left, and 3 of the smallest, down"


@pytest.mark.parametrize("values", [{}, {"versions": 3, "gpus": "x"}, {"versions": {"a": None}, "gpus": [None]}])
def test_a_damaged_environment_gives_what_it_has(values: Any) -> None:
    assert all(isinstance(part, str) for fact in environment_facts(values) for part in fact)


def test_what_was_planned_is_said() -> None:
    plan = {"device": "CPU", "model": "r3d18, 2 million parameters", "seconds": 65.2, "memory_bytes": 3 * 2**29}
    facts = dict(run_facts(RunHistory(Path("run"), config={"model": {"name": "x", "width": 8}}, plan=plan), False))
    assert facts["model"] == "r3d18, 2 million parameters"
    assert (facts["device"], facts["time that was planned"]) == ("CPU", "1:05")
    assert facts["memory that was measured"] == "1.5 GiB"
    without = dict(run_facts(RunHistory(Path("run"), config={"model": {"name": "x", "width": 8}}), False))
    assert without["model"] == "x, width 8"
    assert "time that was planned" not in without
