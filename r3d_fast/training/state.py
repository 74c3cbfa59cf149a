"""Where a run is, and what its checkpoints keep of that."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from pipelines.errors import DataError
from pipelines.index.video_index import VideoIndex
from r3d_fast.config.config import Config
from r3d_fast.evaluation.evaluate import Evaluation
from r3d_fast.training.schedule import Plateau
from r3d_fast.weights.checkpoint import FORMAT, Checkpoint


@dataclass
class RunState:
    """Where a run is: the next step to take, the next clip to take it on, the best evaluation so far."""

    epoch: int = 0
    position: int = 0
    step: int = 0
    skipped: int = 0  # steps that moved nothing, which the learning rate does not count
    best_top1: float = -1.0
    best_step: int = -1
    last_top1: float | None = None
    seconds: float = 0.0  # in all parts of the run, up to its last step
    evals_since_best: int = 0
    plateau_best: float | None = None
    plateau_waited: int = 0
    falls: int = 0

    @classmethod
    def of(cls, checkpoint: Checkpoint) -> RunState:
        """Where the run was when `checkpoint` was made."""
        names = cls.__dataclass_fields__.keys() & checkpoint.state.keys()
        return cls(**{name: checkpoint.state[name] for name in names})

    def enough(self, config: Config) -> str | None:
        """Why the run ends before its last epoch; None if it doesn't."""
        evals, minutes = config.train.early_stop_evals, config.train.max_minutes
        if evals is not None and self.evals_since_best >= evals:
            return f"no better top1 in {self.evals_since_best} evaluations (train.early_stop_evals {evals})"
        if minutes is not None and self.seconds >= 60 * minutes:
            return f"{self.seconds / 60:.1f} minutes are over (train.max_minutes {minutes:g})"
        return None

    def note(self, evaluation: Evaluation, config: Config, *, whole: bool) -> bool:
        """Take an evaluation into account; whether it is the best so far. Videos decide, their views averaged.

        One in the middle of an epoch (not `whole`) is not counted by early stop and plateau: it comes when time is up,
        and a run that is given more goes on as if it had not been. Raises DataError where no video could be read.
        """
        top1, loss = evaluation.video["top1"], evaluation.video["loss"]
        if top1 is None or loss is None:
            raise DataError(
                f"none of the {evaluation.num_videos} videos of split {config.data.eval_split!r} could be read"
            )
        self.last_top1 = top1
        if whole:
            plateau = Plateau(self.plateau_best, self.plateau_waited, self.falls).after(loss, top1, config.schedule)
            self.plateau_best, self.plateau_waited, self.falls = plateau.best, plateau.waited, plateau.falls
            self.evals_since_best += 1
        if top1 <= self.best_top1:
            return False
        self.best_top1, self.best_step, self.evals_since_best = top1, self.step, 0
        return True

    def described(self, config: Config, index: VideoIndex, records: int) -> dict[str, Any]:
        """What a checkpoint keeps beside arrays, as JSON values; `records`: lines of metrics.jsonl so far."""
        return {
            "format": FORMAT,
            "config": config.model_dump(mode="json"),
            "classes": list(index.classes),
            "index_digest": index.digest,
            "records": records,
            **vars(self),
        }
