"""Which modules are changed, and which tests must notice: for each module the quickest ones first."""

from __future__ import annotations

from pathlib import Path

REPO = Path(__file__).resolve().parents[3]

# What runs for every module of a part besides the tests that are called like it.
_PIPELINES, _R3D = "tests/pipelines", "tests/r3d_fast"
_INDEX = (f"{_PIPELINES}/index/test_video_index.py", f"{_PIPELINES}/index/test_changes.py")
_JOBS = (f"{_PIPELINES}/isolation/test_rights.py", f"{_PIPELINES}/isolation/test_reserve.py")
_LOADER = (
    f"{_PIPELINES}/test_loader.py",
    f"{_PIPELINES}/test_loader_epochs.py",
    f"{_PIPELINES}/test_loader_limits.py",
    f"{_PIPELINES}/test_loader_faults.py",
)
_WEIGHTS = (
    f"{_R3D}/weights/test_weights_file.py",
    f"{_R3D}/weights/test_tensor_reader.py",
    f"{_R3D}/weights/test_checkpoint.py",
)
MODULES: dict[str, tuple[str, ...]] = {
    "pipelines/bitstreams/mpeg4.py": (f"{_PIPELINES}/video/test_probe.py",),
    "pipelines/bitstreams/packet_flags.py": (),
    "pipelines/video/packets.py": (),
    "pipelines/video/packet_reader.py": (
        f"{_PIPELINES}/video/test_packets.py",
        f"{_PIPELINES}/video/test_decoder.py",
    ),
    "pipelines/video/probe.py": (f"{_PIPELINES}/video/test_parameters.py", f"{_PIPELINES}/video/test_proof.py"),
    "pipelines/video/proof.py": (f"{_PIPELINES}/video/test_probe.py",),
    "pipelines/video/decoder.py": (f"{_PIPELINES}/bitstreams/test_mpeg4_soundness_damage.py",),
    "pipelines/file_bytes.py": (),
    "pipelines/index/database.py": _INDEX,
    "pipelines/index/video_index.py": (
        f"{_PIPELINES}/index/test_folds.py",
        *_INDEX,
        f"{_PIPELINES}/index/test_database.py",
    ),
    "pipelines/index/index_file.py": (f"{_PIPELINES}/index/test_replacing.py",),
    "pipelines/index/replacing.py": (),
    "pipelines/index/known_bad.py": (),
    "pipelines/index/probe_pool.py": (),
    "pipelines/isolation/jobs.py": (
        f"{_PIPELINES}/isolation/test_reserve.py",
        f"{_PIPELINES}/isolation/test_rights.py",
    ),
    "pipelines/sampler.py": (f"{_PIPELINES}/test_sampler_jitter.py",),
    "pipelines/loader.py": _LOADER,
    "pipelines/prefetch.py": _LOADER,
    "pipelines/workers/pool.py": (f"{_PIPELINES}/test_loader_faults.py",),
    "pipelines/workers/clip_source.py": (),
    "r3d_fast/weights/checkpoint.py": (),
    "r3d_fast/weights/tensor_file.py": _WEIGHTS,
    "r3d_fast/weights/tensor_reader.py": _WEIGHTS,
    "r3d_fast/weights/weights_file.py": (),
    "r3d_fast/runs/checkpoint_writer.py": (),
    "r3d_fast/metrics.py": (),
    "r3d_fast/evaluation/protocols.py": (f"{_R3D}/evaluation/test_protocols.py",),
    "r3d_fast/prediction/timelines/windows.py": (),
    "r3d_fast/prediction/timelines/moments.py": (),
    "r3d_fast/prediction/timelines/events.py": (),
    "r3d_fast/prediction/timelines/timeline.py": (),
}


def concerned(module: str, root: Path) -> list[str]:
    """The test files that concern `module`: those that are called like it, then those named here; paths from `root`.

    A file that is both is run where it is named, so the slow one of several can come last.
    """
    path, named = Path(module), MODULES[module]
    folder = root / "tests" / path.parent
    called = [*sorted(folder.glob(f"test_{path.stem}.py")), *sorted(folder.glob(f"test_{path.stem}_*.py"))]
    names = [str(found.relative_to(root)) for found in called]
    return [name for name in names if name not in named] + list(named)
