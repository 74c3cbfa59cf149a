"""The network of a run, a checkpoint or a .safetensors file, and the function that opens a model of any form."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from r3d_fast.backend.memory import run_batch
from r3d_fast.backend.paddle import choose_device, from_dlpack, import_paddle
from r3d_fast.config.config import Config
from r3d_fast.errors import CheckpointError
from r3d_fast.prediction.network import LogitsAndFeatures, Network
from r3d_fast.weights.stored_model import RestoredModel, restore

EXPORTED = "r3d_fast.json"  # a folder with this file was written by `r3d-fast export`
_STATIC = ("*.pdmodel", "*.pdiparams", "model.json", "*.onnx")


class RestoredNetwork:
    """The Network of a model restored from its weights. On a CPU in float32 it is traced first if many clips follow."""

    def __init__(self, restored: RestoredModel, device: str) -> None:
        self.restored = restored
        self.device = device
        self._graph: Any = None

    @property
    def classes(self) -> tuple[str, ...]:
        """The names of the classes, in the order of the logits."""
        return self.restored.classes

    @property
    def config(self) -> Config:
        """The config that the model was trained with."""
        return self.restored.config

    @property
    def clip_dtype(self) -> Literal["float32", "float16"]:
        """The dtype of the clips that the model takes."""
        return self.restored.precision.clip_dtype

    @property
    def clip_seconds(self) -> float | None:
        """How long the clips of the training were, in the median, in seconds; None if the weights do not say it."""
        return self.restored.clip_seconds

    def expect(self, clips: int) -> None:
        """Prepare for that many more clips: trace the model if that saves time."""
        from r3d_fast.acceleration.cpu import is_worth_tracing, traced_with_features  # imports Paddle

        if self._graph is None and is_worth_tracing(clips, self.device, self.restored.precision):
            self._graph = traced_with_features(self.restored.model)

    def __call__(self, clips: Any) -> LogitsAndFeatures:
        """(logits float32 [N, C], features float32 [N, F]) of a batch; see Network."""
        tensor = clips if isinstance(clips, import_paddle().Tensor) else from_dlpack(clips)
        if self.device == "gpu" and not tensor.place.is_gpu_place():
            tensor = tensor.cuda()
        return run_batch(
            lambda: self._run(tensor), lambda rows: self._run(tensor[:rows]), int(tensor.shape[0]), self.device,
            "--batch-size",
        )  # fmt: skip

    def _run(self, clips: Any) -> LogitsAndFeatures:
        paddle = import_paddle()
        if self._graph is not None:
            logits, features = self._graph(clips)
            return logits.numpy(), features.numpy()
        model, precision = self.restored.model, self.restored.precision
        with paddle.no_grad(), precision.autocast():
            logits, features = model.logits_and_features(clips.astype(precision.dtype))
        return logits.astype("float32").numpy(), features.astype("float32").numpy()


def open_network(model: str | Path, device: str = "auto") -> Network:
    """The network of `model`, on `device` ("auto", "cpu" or "gpu").

    `model`: a folder that `r3d-fast export` wrote, a run, a checkpoint or a .safetensors file. Raises UsageError where
    there is no model, CheckpointError where it is damaged, EnvironmentProblem where this machine has no `device`.
    """
    path = Path(model)
    if (path / EXPORTED).is_file():
        from r3d_fast.export.inference_engine import InferenceEngine

        return InferenceEngine(path, device)
    if path.is_dir() and any(next(path.glob(name), None) for name in _STATIC):
        raise CheckpointError(
            f"{path}: a static model without its {EXPORTED}, which names the classes and describes the clips; "
            "export the run again with: r3d-fast export RUN -o DIR"
        )
    chosen = choose_device(device)
    return RestoredNetwork(restore(path, chosen), chosen)
