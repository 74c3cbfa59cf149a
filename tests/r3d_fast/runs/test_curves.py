"""Curves of a run in four programs: whole after a resume, and never in the way of the training."""

from __future__ import annotations

import json
import os
import socket
import struct
import subprocess
import sys
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import tiny
from runs import each_checkpoint

from pipelines.index.video_index import VideoIndex
from r3d_fast import train as train_function
from r3d_fast.errors import ConfigError
from r3d_fast.runs import sender
from r3d_fast.runs.curves import ScalarLogs


def record(step: int, **more: Any) -> dict[str, Any]:
    return {"kind": "train", "epoch": 1, "step": step, "loss": 1.0 / step, **more}


def needs(name: str) -> pytest.MarkDecorator:
    return pytest.mark.skipif(find_spec(name) is None, reason=f"{name} is not installed: pip install {name}")


@pytest.fixture(autouse=True)
def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    """Weights & Biases writes to files, MLflow into the run; neither looks at who runs the tests."""
    monkeypatch.setenv("WANDB_MODE", "offline")
    for name in ("WANDB_API_KEY", "WANDB_PROJECT", "MLFLOW_TRACKING_URI", "MLFLOW_EXPERIMENT_NAME"):
        monkeypatch.delenv(name, raising=False)


def tensorboard_curve(run: Path, tag: str) -> dict[int, float]:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
    from tensorboard.util.tensor_util import make_ndarray

    events = EventAccumulator(str(run / "tensorboard"), size_guidance={"tensors": 0})
    events.Reload()
    points = [(event.step, float(make_ndarray(event.tensor_proto))) for event in events.Tensors(tag)]
    assert len(dict(points)) == len(points)  # every step once
    return dict(points)


def visualdl_curve(run: Path, tag: str) -> dict[int, float]:
    from visualdl import LogReader

    (file,) = (run / "visualdl").iterdir()
    points = [(point.id, point.value) for point in LogReader(file_path=str(file)).get_data("scalar", tag)]
    assert len(dict(points)) == len(points)
    return dict(points)


def mlflow_curve(run: Path, tag: str) -> dict[int, float]:
    from mlflow.tracking import MlflowClient

    client = MlflowClient(tracking_uri=(run / "mlflow").as_uri())
    points = client.get_metric_history(json.loads((run / "remote_runs.json").read_bytes())["mlflow"], tag)
    assert len({(point.step, point.value) for point in points}) == len({point.step for point in points})
    return {point.step: point.value for point in points}


def wandb_curve(run: Path, tag: str) -> dict[int, float]:
    """The points of all parts of a run, which all have the same identifier, by the files that `wandb sync` uploads."""
    from wandb.proto import wandb_internal_pb2

    (identifier,) = {path.name.rsplit("-", 1)[1] for path in (run / "wandb").glob("offline-run-*")}
    points: dict[int, float] = {}
    for file in sorted((run / "wandb").glob(f"offline-run-*/run-{identifier}.wandb")):
        for message in leveldb_log(file.read_bytes()[7:]):
            found = wandb_internal_pb2.Record()
            found.ParseFromString(message)
            items = {item.key or ".".join(item.nested_key): item.value_json for item in found.history.item}
            if tag in items:
                step, value = int(items["step"]), float(items[tag])
                assert points.setdefault(step, value) == value, "what is sent again is the same"
    return points


def leveldb_log(content: bytes) -> Iterator[bytes]:
    """The records of a file in the format of LevelDB's log, whose first block lacks seven bytes, its header here."""
    place, record = 7, b""
    content = bytes(7) + content
    while place + 7 <= len(content):
        if 32768 - place % 32768 < 7:
            place += 32768 - place % 32768
            continue
        _, length, kind = struct.unpack("<IHB", content[place : place + 7])
        record += content[place + 7 : place + 7 + length]
        place += 7 + length
        if kind in (1, 4):  # a whole record, or the last part of one
            yield record
            record = b""


CURVES = {
    "visualdl": visualdl_curve, "tensorboard": tensorboard_curve, "wandb": wandb_curve, "mlflow": mlflow_curve,
}  # fmt: skip


def test_curves_of_a_resumed_run_have_every_step_once(index: VideoIndex, tmp_path: Path) -> None:
    installed = [backend for backend in CURVES if find_spec(backend)]
    more = (f"train.log_to=[{','.join(installed)}]", "train.log_every_steps=2", "train.keep_checkpoints=100")
    run = tmp_path / "run"
    with each_checkpoint():
        train_function(tiny.tiny_config(index, *more), run=run)
    for folder in sorted((run / "checkpoints").iterdir())[2:]:
        for file in folder.iterdir():
            file.unlink()
        folder.rmdir()
    train_function(tiny.tiny_config(index, *more), run=run, resume=True)
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    losses = {r["step"]: r["loss"] for r in lines if r["kind"] == "train" and r["step"] % 2 == 0}
    top1 = {r["step"]: r["top1"] for r in lines if r["kind"] == "eval"}
    for backend in installed:
        read: Any = CURVES[backend]
        assert read(run, "train/loss") == pytest.approx(losses, rel=1e-6), backend
        assert read(run, "eval/top1") == pytest.approx(top1), backend


@pytest.mark.parametrize("backend", CURVES)
def test_only_curves_that_are_wanted_are_written(backend: Any, tmp_path: Path) -> None:
    if find_spec(backend) is None:
        pytest.skip(f"{backend} is not installed: pip install {backend}")
    ScalarLogs(tmp_path, [backend], [record(1)], print).close()
    assert set(CURVES) & {path.name for path in tmp_path.iterdir()} == {backend}


def test_automatic_curves_are_those_that_are_installed(tmp_path: Path) -> None:
    said: list[str] = []
    curves = ScalarLogs(tmp_path, "auto", [record(1)], said.append)
    curves.close()
    assert {path.name for path in tmp_path.iterdir()} == {n for n in ("visualdl", "tensorboard") if find_spec(n)}
    assert said == []


def test_a_backend_that_is_missing_or_fails_is_left_out_and_said_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Stand-ins on the path: tensorboard breaks while it is imported, visualdl when it is to write."""
    (tmp_path / "tensorboard").mkdir()
    (tmp_path / "tensorboard" / "__init__.py").write_text("raise RuntimeError('no protobuf')", encoding="utf-8")
    (tmp_path / "visualdl.py").write_text(
        "class LogWriter:\n    def __init__(self, logdir): pass\n    def add_scalar(self, *a): raise OSError('gone')\n",
        encoding="utf-8",
    )
    for name in [name for name in sys.modules if name.split(".")[0] in ("tensorboard", "visualdl")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.syspath_prepend(tmp_path)
    said: list[str] = []
    curves = ScalarLogs(tmp_path / "run", "auto", [], said.append)
    for step in (1, 2):
        curves.write(record(step))
    curves.close()
    assert said == [
        "warning: no curves for tensorboard in this run (RuntimeError: no protobuf)",
        "warning: no curves for visualdl in this run (OSError: gone)",
    ]
    monkeypatch.setattr("r3d_fast.runs.curves.find_spec", lambda name: None)
    monkeypatch.setitem(sys.modules, "visualdl", None)
    said.clear()
    ScalarLogs(tmp_path / "run", ["visualdl"], [record(1)], said.append).close()
    assert said == [
        "warning: no curves for visualdl in this run (not installed: pip install 'r3d-fast[visualdl]')",
    ]


def test_an_unknown_backend_is_a_config_error() -> None:
    with pytest.raises(ConfigError, match=r"train\.log_to.*'visualdl', 'tensorboard', 'wandb' or 'mlflow'"):
        tiny.load_config("demo", ["train.log_to=[neptune]"])


@needs("mlflow")
def test_a_new_mlflow_run_has_the_config(tmp_path: Path) -> None:
    from mlflow.tracking import MlflowClient

    (tmp_path / "config.yaml").write_text(
        "train:\n  epochs: 3\n  seed: 0\nmodel: {name: r3d18}\ndata: {root: 'http://u:secret@h/d', token: abc}\n",
        encoding="utf-8",
    )
    ScalarLogs(tmp_path, ["mlflow"], [], print).close()
    client = MlflowClient(tracking_uri=(tmp_path / "mlflow").as_uri())
    found = client.get_run(json.loads((tmp_path / "remote_runs.json").read_bytes())["mlflow"])
    assert found.data.params == {
        "train.epochs": "3", "train.seed": "0", "model.name": "r3d18", "data.root": "http://u:***@h/d",
        "data.token": "***",
    }  # fmt: skip
    assert (found.info.run_name, found.info.status) == (tmp_path.name, "FINISHED")


@needs("wandb")
def test_nobody_is_asked_to_log_in(tmp_path: Path) -> None:
    """In a process of its own, with a home in which nobody is logged in."""
    program = (
        "from pathlib import Path\n"
        "from r3d_fast.runs.curves import ScalarLogs\n"
        f"ScalarLogs(Path({str(tmp_path)!r}), ['wandb'], [], print).close()\n"
    )
    environment = {**os.environ, "HOME": str(tmp_path), "WANDB_MODE": "online", "PYTHONPATH": str(tiny.REPO)}
    done = subprocess.run(
        [sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout == (
        "warning: no curves for wandb in this run (RuntimeError: nobody is logged in; run `wandb login`, or set "
        "WANDB_MODE=offline)\n"
    )


@needs("mlflow")
def test_a_server_that_does_not_answer_delays_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It takes connections and says nothing, until the curves are closed."""
    monkeypatch.setattr(sender, "_PATIENCE", 0.5)
    said: list[str] = []
    with socket.create_server(("127.0.0.1", 0)) as server:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{server.getsockname()[1]}")
        curves = ScalarLogs(tmp_path, ["mlflow"], [], said.append)
        for step in range(1, 100):
            curves.write(record(step))  # returns, though nothing was sent
        curves.close()
    assert len(said) == 1, "one warning: by the thread, or as it does not end"
    assert said[0].startswith("warning: no curves for mlflow in this run (")
