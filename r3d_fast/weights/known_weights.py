"""The weights that `r3d-fast data weights` can fetch, and where on this machine they lie once they are fetched."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from pipelines.errors import UsageError


@dataclass(frozen=True)
class KnownWeights:
    """Weights that their authors publish: their address, size in bytes and SHA-256, and what they are."""

    name: str
    url: str
    size: int
    sha256: str
    model: str
    trained_on: str
    authors: str


# The address is in torchvision/models/video/resnet.py. Its name has the first eight digits of the SHA-256, which
# torch.hub checks. The whole SHA-256 and the size are as several projects record them that have downloaded the file,
# such as scripts of theirs that call sha256sum. torchvision's r2plus1d_18 and mc3_18 are networks that are not built
# here: docs/weights.md says so.
_LISTED = (
    KnownWeights(
        "r3d18-kinetics400",
        "https://download.pytorch.org/models/r3d_18-b3b3357e.pth",
        133_546_016,
        "b3b3357ead25631ec9c57362ff2128a92d0427e01e2cd184951a44380c3f2e9d",
        "r3d18",
        "Kinetics-400",
        "torchvision (r3d_18, KINETICS400_V1)",
    ),
)
KNOWN_WEIGHTS: Mapping[str, KnownWeights] = {known.name: known for known in _LISTED}
FINETUNED = "r3d18-kinetics400"  # the weights that configs/folder_finetune.yaml starts from


def cache_folder() -> Path:
    """The folder of this user for fetched weights: in $XDG_CACHE_HOME, else in ~/.cache."""
    cache = os.environ.get("XDG_CACHE_HOME", "")
    return (Path(cache) if Path(cache).is_absolute() else Path.home() / ".cache") / "r3d-fast" / "weights"


def fetched_file(name: str, folder: Path | None = None) -> Path:
    """Where the weights called `name` lie once they are fetched: in `folder`, or else in the user's cache."""
    return (folder or cache_folder()) / f"{name}.safetensors"


def fetch_command(name: str) -> str:
    """The command that fetches the weights called `name`."""
    return f"r3d-fast data weights {name}"


def weights_at_hand() -> Path | None:
    """The fetched weights that the config folder_finetune starts from; None where they have not been fetched."""
    file = fetched_file(FINETUNED)
    return file if file.is_file() else None


def weights_path(given: Path) -> Path:
    """The path of the weights that `init.weights` names: a path, or the name of known weights that were fetched.

    Raises UsageError where there is nothing at that path, with the command that fetches them where the name is known.
    """
    if given.exists():
        return given
    name = str(given)
    if name in KNOWN_WEIGHTS:
        file = fetched_file(name)
        if file.is_file():
            return file
        raise UsageError(f"init.weights {name}: not fetched yet; fetch it with: {fetch_command(name)}")
    raise UsageError(
        f"init.weights {given}: no such file or folder; expected a weights file, a run, a checkpoint, or the name of "
        f"known weights: {', '.join(KNOWN_WEIGHTS)}"
    )
