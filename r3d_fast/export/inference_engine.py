"""Runs an exported model in Paddle's inference engine: with oneDNN on the CPU, with TensorRT on a GPU if available."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from pipelines.errors import EnvironmentProblem, UsageError
from r3d_fast.backend.memory import is_out_of_memory, run_batch
from r3d_fast.backend.native_output import native_output_hidden
from r3d_fast.backend.paddle import (
    choose_device,
    cpu_threads,
    from_dlpack,
    gpu_number,
    has_newer_graphs,
    import_paddle,
    restore_threads,
    tensorrt_version,
    use_onednn,
)
from r3d_fast.config.config import Config
from r3d_fast.console import tell
from r3d_fast.errors import CheckpointError
from r3d_fast.export.manifest import PARAMETERS, ExportManifest, check_files, read_exported

_FIRST_GPU_MIB = 100  # GPU memory taken at the start; more is taken as needed
# TensorRT plans for batches of (least, usual, most) clips; larger batches are run in pieces.
_TENSORRT_BATCHES = (1, 8, 32)
_TENSORRT_WORKSPACE = 1 << 30  # bytes
_TENSORRT_LEAST_OPS = 3  # fewer operators in a row are not worth handing over to TensorRT
_PRECISIONS = {"fp32": "Float32", "fp16": "Half", "bf16": "Bfloat16"}


class InferenceEngine:
    """The Network of a folder that `r3d-fast export` wrote; see r3d_fast/prediction/network.py."""

    def __init__(self, folder: Path, device: str = "cpu") -> None:
        """Load the model in `folder` on `device` ("auto", "cpu" or "gpu"); its files are checked against r3d_fast.json.

        Raises CheckpointError where the export is damaged, EnvironmentProblem where this machine can't run it.
        """
        about = read_exported(folder)
        if about.program == "model.json" and not has_newer_graphs():
            raise EnvironmentProblem(
                f"{folder / about.program}: exported in the form of Paddle 3, this is Paddle "
                f"{import_paddle().__version__}; export again with --form 2.6, which both versions read"
            )
        check_files(folder, about, (about.program, PARAMETERS))
        self.device = choose_device(device)
        if about.precision != "fp32" and self.device == "cpu":
            raise EnvironmentProblem(
                f"{folder}: exported in {about.precision}, in which Paddle has no 3D convolution on the CPU; use a "
                "GPU, or export again without --precision"
            )
        self.folder, self.about = folder, about
        self.tensorrt = False
        self._predictor = self._create()

    @property
    def classes(self) -> tuple[str, ...]:
        """The names of the classes, in the order of the logits."""
        return self.about.classes

    @property
    def config(self) -> Config:
        """The run's config, as far as predicting depends on it."""
        return self.about.config

    @property
    def clip_dtype(self) -> Literal["float32", "float16"]:
        """The dtype of the clips that the model takes: always float32, also where the graph computes in half."""
        return "float32"

    @property
    def clip_seconds(self) -> float | None:
        """How long the clips of the training were, in the median, in seconds; None if the export does not say it."""
        return self.about.clip_seconds

    def tensor_names(self) -> tuple[list[str], list[str]]:
        """(names of the inputs, names of the outputs) in Paddle's predictor."""
        return self._predictor.get_input_names(), self._predictor.get_output_names()

    def expect(self, clips: int) -> None:
        """Does nothing: the graph is ready already."""

    def __call__(self, clips: Any) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """(logits float32 [N, C], features float32 [N, F]) of clips float32 [N, 3, T, S, S], for any N.

        `clips`: a NumPy array, a Paddle tensor or any other DLPack object. Raises UsageError for another shape or
        dtype; EnvironmentProblem, with the batch size that would fit, where the memory runs out.
        """
        values = _on_host(clips)
        shape = self.about.inputs[0].shape
        if values.dtype != np.float32 or values.ndim != len(shape) or values.shape[1:] != shape[1:]:
            raise UsageError(
                f"{self.folder}: clips {values.dtype} {list(values.shape)}, expected float32 {['N', *shape[1:]]}"
            )
        return run_batch(
            lambda: self._run(values), lambda rows: self._run(values[:rows]), len(values), self.device, "--batch-size"
        )

    def _run(self, clips: NDArray[np.float32]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """The outputs for clips; a batch larger than TensorRT has planned for is run in pieces."""
        most = _TENSORRT_BATCHES[2] if self.tensorrt else max(1, len(clips))
        pieces = [self._run_piece(clips[first : first + most]) for first in range(0, len(clips), most)]
        if not pieces:
            return tuple(np.zeros((0, out.shape[1]), np.float32) for out in self.about.outputs)  # type: ignore[return-value]
        logits, features = map(np.concatenate, zip(*pieces, strict=True))
        return logits, features

    def _run_piece(self, clips: NDArray[np.float32]) -> list[NDArray[np.float32]]:
        predictor = self._predictor
        source = predictor.get_input_handle(predictor.get_input_names()[0])
        source.reshape(list(clips.shape))
        source.copy_from_cpu(np.ascontiguousarray(clips))
        predictor.run()
        if self.device == "cpu":
            restore_threads()
        names = predictor.get_output_names()
        outputs = [np.asarray(predictor.get_output_handle(name).copy_to_cpu(), np.float32) for name in names]
        wanted = [(len(clips), out.shape[1]) for out in self.about.outputs]
        if (found := [out.shape for out in outputs]) != wanted:
            raise CheckpointError(
                f"{self.folder}: the model gives outputs of shapes {list(map(list, found))} for {len(clips)} clips, "
                f"r3d_fast.json says {list(map(list, wanted))}: the files are not from one export; export again"
            )
        return outputs

    def _create(self) -> Any:
        """A predictor that has run once. Raises CheckpointError where Paddle can't read the files."""
        if self.device == "gpu" and self._wants_tensorrt():
            self.tensorrt = True
            try:
                return self._warmed()
            except Exception as error:  # TensorRT may raise anything; Paddle's own kernels give the same outputs
                self.tensorrt = False
                _warn_no_tensorrt((str(error).strip() or type(error).__name__).splitlines()[-1])
        try:
            return self._warmed()
        except (CheckpointError, MemoryError):
            raise
        except Exception as error:  # RuntimeError, ValueError and others, depending on the file and the version
            if is_out_of_memory(error):
                raise
            reason = (str(error).strip() or type(error).__name__).splitlines()[-1].strip()
            raise CheckpointError(
                f"{self.folder}: Paddle {import_paddle().__version__} can't run this model, which was exported with "
                f"Paddle {self.about.paddle} ({reason}); export again with the version that is to run it"
            ) from error

    def _wants_tensorrt(self) -> bool:
        """Whether TensorRT can run this model here; where it can't, a warning says why."""
        if self.about.program == "model.json":
            _warn_no_tensorrt("Paddle gives it only models of the 2.6 form: export with --form 2.6")
        elif not any(tensorrt_version()):
            _warn_no_tensorrt("this Paddle was built without it, or its library is not found")
        else:
            return True
        return False

    def _warmed(self) -> Any:
        """A predictor that has run once. What Paddle prints in its first run is hidden."""
        with native_output_hidden():
            config = engine_config(self.folder, self.about, self.device, self.tensorrt)
            predictor = import_paddle().inference.create_predictor(config)
            self._predictor = predictor
            self._run_piece(np.zeros((1, *self.about.inputs[0].shape[1:]), np.float32))
        return predictor


def engine_config(folder: Path, about: ExportManifest, device: str, tensorrt: bool) -> Any:
    """Paddle's inference config for the model in `folder`, on `device`, with or without TensorRT."""
    inference = import_paddle().inference
    config = inference.Config(str(folder / about.program), str(folder / PARAMETERS))
    config.disable_glog_info()
    if device == "cpu":
        config.disable_gpu()
        config.set_cpu_math_library_num_threads(cpu_threads())
        use_onednn(config)
        if about.program == "model.pdmodel":  # on model.json Paddle 3.3.1 fails with it
            config.enable_memory_optim()
        return config
    config.enable_use_gpu(_FIRST_GPU_MIB, gpu_number())
    if tensorrt:
        config.enable_tensorrt_engine(
            workspace_size=_TENSORRT_WORKSPACE,
            max_batch_size=_TENSORRT_BATCHES[2],
            min_subgraph_size=_TENSORRT_LEAST_OPS,
            precision_mode=getattr(inference.PrecisionType, _PRECISIONS[about.precision]),
            use_static=False,
            use_calib_mode=False,
        )
        name, shape = about.inputs[0].name, list(about.inputs[0].shape[1:])
        least, usual, most = ({name: [batch, *shape]} for batch in _TENSORRT_BATCHES)
        config.set_trt_dynamic_shape_info(least, most, usual)
    return config


def _on_host(clips: Any) -> NDArray[Any]:
    """`clips` as a NumPy array; it shares the memory of clips that are in host memory."""
    if isinstance(clips, np.ndarray):
        return clips
    tensor = clips if isinstance(clips, import_paddle().Tensor) else from_dlpack(clips)
    values: NDArray[Any] = tensor.numpy()
    return values


def _warn_no_tensorrt(reason: str) -> None:
    tell(f"warning: TensorRT is not used ({reason}); using Paddle's own GPU kernels")
