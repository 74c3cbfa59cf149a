from __future__ import annotations

import json
from pathlib import Path

import pytest

from bench.cli import cli
from bench.reporting.tables import load_folder, tables
from r3d_fast.cli import run_cli

SMALL = ("model.name=r3d10", "model.width=4", "augment.size_px=16", "clip.num_frames=4")


@pytest.mark.slow
def test_the_whole_experiment_on_a_small_scale(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = [
        "studies",
        "resume",
        "--kills",
        "2",
        "--steps",
        "2",
        "--batch-size",
        "2",
        "--json",
        str(tmp_path / "resume.json"),
    ]
    for override in SMALL:
        words += ["-o", override]
    assert run_cli(cli, words, "bench") == 0
    assert "kill 2: after step" in capsys.readouterr().err
    values = json.loads((tmp_path / "resume.json").read_text(encoding="utf-8"))
    assert values["kills"] == 2
    for proof in ("weights and moments bit-equal", "best weights bit-equal", "every step once", "metrics equal"):
        assert values[proof] is True, proof
    assert values["seconds of a step"]["low"] > 0
    assert values["share of a step that handing over takes"] > 0
    assert "| every step once | true |" in tables(load_folder(tmp_path))
