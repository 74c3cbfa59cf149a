"""Every difference between DALI versions, found by looking for the feature, never by comparing versions."""

from __future__ import annotations

import inspect
from types import ModuleType
from typing import Any

from pipelines.errors import EnvironmentProblem


def import_dali() -> tuple[ModuleType, ModuleType, Any]:
    """(nvidia.dali.fn, nvidia.dali.types, Pipeline). Raises EnvironmentProblem where DALI is not installed."""
    try:
        from nvidia.dali import fn, types
        from nvidia.dali.pipeline import Pipeline
    except ImportError as error:
        raise EnvironmentProblem(
            f"NVIDIA DALI can't be imported ({error}); install it with: pip install 'r3d-fast[cpu]' (any machine), "
            "'r3d-fast[cuda11]' or 'r3d-fast[cuda12]' (with a GPU)"
        ) from error
    return fn, types, Pipeline


def executor_options(pipeline: Any) -> dict[str, bool]:
    """Constructor options of the executor whose outputs belong to whoever holds them, where there is a choice.

    DALI's older executor writes later batches into the buffers of earlier ones.
    """
    return {"exec_dynamic": True} if "exec_dynamic" in inspect.signature(pipeline.__init__).parameters else {}
