from __future__ import annotations

import fcntl
import json
import math
import os
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
import tiny

from pipelines.errors import UsageError
from pipelines.index.video_index import VideoIndex
from r3d_fast.runs.folder import RunFolder
from r3d_fast.runs.history import MetricsReader, is_running, number, read_history, series
from r3d_fast.runs.metrics_file import MetricsFile


def step(number: int, **values: object) -> dict[str, object]:
    return {"kind": "train", "epoch": 1, "step": number, "loss": 1.0 / number, **values}


def test_a_run_that_ended_is_read_whole(tmp_path: Path, index: VideoIndex) -> None:
    run = tiny.trained(tmp_path / "run", index)
    history = read_history(run)
    assert [record["step"] for record in history.steps] == list(range(1, 13))
    assert [record["epoch"] for record in history.evaluations] == [1, 2, 3]
    assert history.best is not None
    assert history.best["top1"] == max(record["top1"] for record in history.evaluations)
    assert history.setting("train", "epochs") == 3
    assert history.setting("train", "nothing") is None
    assert "command" in history.environment
    assert history.problems == ()
    assert not is_running(run)


@pytest.mark.parametrize(
    ("losses", "epoch"),
    [((None, 1.0, 1.0, 1.0), 2), ((None, None, None, None), 2), ((0.1, 0.1, 3.0, 2.0), 3), ((0.1, 0.1, None, 2.0), 3)],
)
def test_the_best_is_the_first_of_equals_or_the_one_with_the_lower_loss(
    losses: tuple[float | None, ...], epoch: int, tmp_path: Path
) -> None:
    tops = [None, 0.5, 0.75, 0.75]
    lines = [
        {"kind": "eval", "epoch": epoch, "step": epoch, "top1": top, "loss": loss}
        for epoch, (top, loss) in enumerate(zip(tops, losses, strict=True))
    ]
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    history = read_history(tmp_path)
    assert history.best is not None
    assert history.best["epoch"] == epoch
    assert history.evaluations_since_best == 1  # as early stopping counts, whatever the losses are


def test_metrics_are_read_while_they_grow(tmp_path: Path) -> None:
    reader = MetricsReader(tmp_path / "metrics.jsonl")
    assert not reader.update()
    with closing(MetricsFile(tmp_path, 0)) as writer:
        for number_ in (1, 2):
            writer.write(step(number_))
    assert reader.update()
    assert not reader.update()
    with reader.path.open("ab") as file:
        file.write(b'{"kind": "train", "step": 3, "lo')
        file.flush()
        assert not reader.update()
        file.write(b'ss": 0.25}\n')
    assert reader.update()
    assert [record["step"] for record in reader.records] == [1, 2, 3]


def test_metrics_that_were_cut_back_are_read_anew(tmp_path: Path) -> None:
    reader = MetricsReader(tmp_path / "metrics.jsonl")
    with closing(MetricsFile(tmp_path, 0)) as writer:
        for number_ in range(1, 9):
            writer.write(step(number_))
    assert reader.update()
    with closing(MetricsFile(tmp_path, 5)) as writer:  # as a run does that goes on from a checkpoint
        for number_ in range(6, 20):  # longer than before when it is looked at next
            writer.write(step(number_, loss=7.0))
    assert reader.update()
    assert [record["step"] for record in reader.records] == list(range(1, 20))
    assert reader.records[5]["loss"] == 7.0
    # The same file, cut in its place and filled again, as a copy onto it does.
    reader.path.write_text("".join(json.dumps(step(number_, loss=3.0)) + "\n" for number_ in range(1, 40)))
    assert reader.update()
    assert {record["loss"] for record in reader.records} == {3.0}
    reader.path.unlink()
    assert reader.update()
    assert reader.records == []


def test_lines_that_are_no_record_are_counted(tmp_path: Path) -> None:
    good = json.dumps(step(1)).encode()
    bad = [b"{", b"[1]", b'"x"', b"\xff\xfe", b"[" * 100_000, b'{"kind": 3}', b'{"step": 1}', b"1" * 5000]
    (tmp_path / "metrics.jsonl").write_bytes(b"\n".join([*bad, b"", good, b""]))
    history = read_history(tmp_path)
    assert len(history.records) == 1
    assert history.problems[0] == history.lost
    assert history.lost == (
        f"metrics.jsonl: {len(bad)} lines left out, which can't be read; 1 whole record is used; if you have a copy "
        "of the file, put it back"
    )


def test_metrics_that_end_too_early_are_noticed_by_the_checkpoint(tmp_path: Path) -> None:
    checkpoint = tmp_path / "checkpoints" / "step-000000003"
    checkpoint.mkdir(parents=True)
    (checkpoint / "state.json").write_text('{"step": 3, "records": 3}')
    path = tmp_path / "metrics.jsonl"
    cut = f"{json.dumps(step(1))}\n{json.dumps(step(2))}\n"
    for content, what in (
        (cut, "cut short: the newest checkpoint counts 3 records; 2 whole"),
        (f'{cut}{{"kind": ', "1 line left out, which can't be read; 2 whole"),
        (f"{cut}{json.dumps(step(3))}", ""),  # only a line break is missing
        (f"{cut}{json.dumps(step(3))}\n{json.dumps(step(4))}\n", ""),
    ):
        path.write_text(content)
        assert read_history(tmp_path).lost.startswith(f"metrics.jsonl: {what}") == bool(what)
    with (tmp_path / ".lock").open("a") as lock, path.open("a") as file:
        fcntl.flock(lock, fcntl.LOCK_EX)
        file.write('{"kind": ')  # a line that the training is just writing
        file.flush()
        assert read_history(tmp_path).lost == ""
    path.unlink()
    assert "missing: the newest checkpoint counts 3 records; 0 whole" in read_history(tmp_path).lost
    os.mkfifo(path)
    assert "it is a FIFO; expected a regular file; 0 whole" in read_history(tmp_path).lost


@pytest.mark.parametrize("command", [["report"], ["watch", "--once"]])
def test_damaged_metrics_are_said_by_what_shows_them(
    command: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "metrics.jsonl").write_text(f"{json.dumps(step(1))}\nx\n")
    (tmp_path / "config.yaml").write_text("{}")
    (tmp_path / "env.json").write_text("{}")
    code, _, err = tiny.said(capsys, *command, tmp_path)
    assert code == 0
    assert err == (
        f"warning: {tmp_path}: metrics.jsonl: 1 line left out, which can't be read; 1 whole record is used; if you "
        "have a copy of the file, put it back\n"
    )


def test_only_numbers_are_numbers(tmp_path: Path) -> None:
    line = '{"kind": "train", "step": 1, "a": NaN, "b": Infinity, "c": null, "d": "5", "e": true, "f": 2, "g": 1e999}'
    (tmp_path / "metrics.jsonl").write_text(f"{line}\n".replace("2,", f'2, "h": {"9" * 400},'))
    (record,) = read_history(tmp_path).records
    assert number(record, "f") == 2.0
    assert all(math.isnan(number(record, key)) for key in ("a", "b", "c", "d", "e", "g", "h", "missing"))


def test_a_series_leaves_out_what_is_no_number() -> None:
    records = [step(1, loss=2.0), step(2, loss=None), step(3, loss=0.5), {"kind": "train", "loss": 1.0}]
    steps, values = series(records, "loss")
    np.testing.assert_array_equal(steps, [1.0, 3.0])
    np.testing.assert_array_equal(values, [2.0, 0.5])
    assert [array.shape for array in series([], "loss")] == [(0,), (0,)]


@pytest.mark.parametrize("content", [b"", b"{", b"[1]", b"\x00\xff", b"a: [", b"- 1\n- 2\n"])
def test_damaged_files_are_named(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "evaluation").mkdir()
    for name in ("config.yaml", "env.json", "plan.json", "evaluation/figures.json"):
        (tmp_path / name).write_bytes(content)
    history = read_history(tmp_path)
    assert (history.config, history.environment, history.plan, history.figures) == ({}, {}, {}, {})
    for name in ("config.yaml", "env.json", "plan.json", "figures.json", "metrics.jsonl"):
        assert sum(problem.startswith(f"{name}: ") for problem in history.problems) == 1, name
    assert not any("\n" in problem for problem in history.problems)


def test_what_is_no_run_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "folder").mkdir()
    for name, what in (("none", "not there"), ("file", "a file"), ("folder", "no run")):
        with pytest.raises(UsageError, match=f"{name}: {what}.*; expected "):
            read_history(tmp_path / name)


def test_a_run_is_running_while_its_process_holds_it(tmp_path: Path) -> None:
    assert not is_running(tmp_path / "none")
    code = (
        "import sys; from pathlib import Path; from r3d_fast.runs.folder import RunFolder\n"
        "with RunFolder(Path(sys.argv[1])): print(1, flush=True); sys.stdin.read()"
    )
    child = subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path / "run")],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        cwd=tiny.REPO,
    )
    assert child.stdout is not None
    assert child.stdout.readline() == b"1\n"
    assert is_running(tmp_path / "run")
    child.communicate()
    assert not is_running(tmp_path / "run")
    with RunFolder(tmp_path / "run"):  # looking leaves no lock behind
        pass
