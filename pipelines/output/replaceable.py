"""Which files a result must not replace: those that somebody keeps, whatever result they were named for by mistake."""

from __future__ import annotations

from pathlib import Path

from pipelines.datasets.video_files import is_video_name

_DATABASE = b"SQLite format 3\0"
_ENDINGS = {
    **dict.fromkeys((".r3dindex", ".quarantine"), "of an index"),
    **dict.fromkeys((".safetensors", ".pdparams", ".pdiparams", ".pdmodel", ".pth", ".pt", ".onnx"), "weights"),
    **dict.fromkeys((".yaml", ".yml"), "a config"),
}
# Files that lie beside others, by which they are recognised: of a run, of a checkpoint, of an export.
_BESIDE = {
    **dict.fromkeys(("metrics.jsonl", "metrics.csv", "env.json", "plan.json", "folds.json"), "config.yaml"),
    **dict.fromkeys(("manifest.json", "state.json"), "model.safetensors"),
    "r3d_fast.json": "model.pdiparams",
}


def why_video(place: Path, named: Path) -> str:
    """That there is a video at `place`, which the user named `named`, as far as these names tell; "" if not."""
    return "it is a video" if place.exists() and (is_video_name(place.name) or is_video_name(named.name)) else ""


def why_kept(place: Path) -> str:
    """Why a result must not replace what is at `place`: what it is; "" if it may.

    Earlier results may be replaced, and so may what nothing is known of.
    """
    if not place.is_file():
        return ""
    if kind := _ENDINGS.get(place.suffix.lower()):
        return f"it is {'a file ' if kind.startswith('of') else ''}{kind}"
    if (other := _BESIDE.get(place.name)) and (place.parent / other).is_file():
        return f"it belongs to the {other} beside it"
    try:
        with place.open("rb") as file:
            is_database = file.read(len(_DATABASE)) == _DATABASE
    except OSError:
        return ""
    return "it is an index, or another database" if is_database else ""
