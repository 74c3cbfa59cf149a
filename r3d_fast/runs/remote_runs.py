"""Runs in the programs that keep curves elsewhere: Weights & Biases, MLflow. A run that goes on keeps its place there.

Which run of theirs is ours stands in the file remote_runs.json of the run's folder.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Literal, Protocol

from pipelines.input.credentials import values_without_credentials
from pipelines.input.regular_files import read_regular
from pipelines.output.files import write_file
from r3d_fast.config.yaml_files import read_sections
from r3d_fast.errors import ConfigError

Remote = Literal["wandb", "mlflow"]
REMOTES: tuple[Remote, ...] = ("wandb", "mlflow")

_PROJECT = "r3d-fast"  # the project or experiment, where the environment names none
_FILE = "remote_runs.json"
_MOST_BYTES = 1 << 20  # of that file
_MOST_PARAMETERS = 100  # that MLflow takes at once
_LONGEST = 500  # characters of a value that MLflow takes


class RemoteRun(Protocol):
    """A run in another program."""

    def add(self, values: Mapping[str, float], step: int) -> None:
        """Add numbers to their curves at `step`."""

    def close(self) -> None:
        """Send what is still here, and end the run."""


def known_run(run: Path, remote: Remote) -> str | None:
    """The identifier that the run in the folder `run` has in `remote`; None where it has none yet."""
    value = _known(run).get(remote)
    return value if isinstance(value, str) else None


def open_remote_run(run: Path, remote: Remote) -> RemoteRun:
    """The run of `remote` in which the run in the folder `run` goes on, or a new one with its config.

    Raises whatever the program raises: it is not installed, nobody is logged in, there is no network.
    """
    known = known_run(run, remote)
    opened = (_WandbRun if remote == "wandb" else _MlflowRun)(run, known)
    if known is None:
        write_file(run / _FILE, json.dumps({**_known(run), remote: opened.identifier}).encode(), follow=False)
    return opened


class _WandbRun:
    def __init__(self, run: Path, known: str | None) -> None:
        import wandb

        settings = wandb.Settings(console="off", silent=True, init_timeout=60.0)
        # Where nobody is logged in, `init` would ask at the terminal in which the training shows its progress.
        if wandb.setup().settings.mode in ("online", "shared") and not wandb.login(prompt=False):
            raise RuntimeError("nobody is logged in; run `wandb login`, or set WANDB_MODE=offline")
        self._run = wandb.init(
            project=os.environ.get("WANDB_PROJECT", _PROJECT), name=run.resolve().name, dir=str(run), id=known,
            resume="allow", config=_config(run) if known is None else None, settings=settings,
        )  # fmt: skip
        self._run.define_metric("*", step_metric="step")
        self.identifier: str = self._run.id

    def add(self, values: Mapping[str, float], step: int) -> None:
        self._run.log({**values, "step": step})

    def close(self) -> None:
        self._run.finish()


class _MlflowRun:
    def __init__(self, run: Path, known: str | None) -> None:
        place = os.environ.get("MLFLOW_TRACKING_URI")
        if not place:
            # MLflow 3 wants to be told that plain files are meant, which need no database.
            os.environ.setdefault("MLFLOW_ALLOW_FILE_STORE", "true")
            place = (run / "mlflow").resolve().as_uri()
        from mlflow.entities import Param
        from mlflow.tracking import MlflowClient

        self._client = MlflowClient(tracking_uri=place)
        if known is not None:
            self._client.update_run(known, status="RUNNING")
            self.identifier = known
            return
        name = os.environ.get("MLFLOW_EXPERIMENT_NAME", _PROJECT)
        experiment = self._client.get_experiment_by_name(name)
        number = experiment.experiment_id if experiment is not None else self._client.create_experiment(name)
        self.identifier = self._client.create_run(number, run_name=run.resolve().name).info.run_id
        parameters = [Param(key, str(value)[:_LONGEST]) for key, value in _flat(_config(run))]
        for begin in range(0, len(parameters), _MOST_PARAMETERS):
            self._client.log_batch(self.identifier, params=parameters[begin : begin + _MOST_PARAMETERS])

    def add(self, values: Mapping[str, float], step: int) -> None:
        from mlflow.entities import Metric

        milliseconds = time.time_ns() // 1_000_000
        metrics = [Metric(key, value, milliseconds, step) for key, value in values.items()]
        self._client.log_batch(self.identifier, metrics=metrics)

    def close(self) -> None:
        self._client.set_terminated(self.identifier)


def _known(run: Path) -> dict[str, Any]:
    with suppress(OSError, ValueError):
        known = json.loads(read_regular(run / _FILE, _MOST_BYTES))
        return known if isinstance(known, dict) else {}
    return {}


def _config(run: Path) -> dict[str, Any]:
    """The content of the run's config.yaml, without what looks like a password, a token or a key."""
    with suppress(ConfigError):
        return dict(values_without_credentials(read_sections(run / "config.yaml")))
    return {}


def _flat(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """(key, value) of each value below `values`, with keys such as train.epochs."""
    for key, value in values.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value
