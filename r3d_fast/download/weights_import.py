"""Fetches known weights from the address that their authors gave, and imports them for this project."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from pipelines.output.folders import make_folder
from r3d_fast.download.transfer import Wanted, fetch
from r3d_fast.errors import CheckpointError
from r3d_fast.weights.foreign.importer import import_weights
from r3d_fast.weights.known_weights import KNOWN_WEIGHTS, fetched_file
from r3d_fast.weights.stored_model import read_weights

Say = Callable[[str], None]
Show = Callable[[str, int, int], None]  # (title of a task, steps done, steps in all), for a progress bar


def fetch_weights(
    name: str, folder: Path | None = None, *, mirror: str = "", say: Say, show: Show | None = None
) -> Path:
    """The file of the weights called `name` in `folder` (default: the user's cache), fetched unless it is there.

    An interrupted download goes on where it stopped; what arrives is checked by its size and SHA-256, imported, and
    then deleted. `mirror` is a folder on the web to use instead of the authors' address. `say` gets lines of text,
    `show` the progress. Raises what transfer.fetch and import_weights raise, UsageError where the folder can't be
    written, and CheckpointError where the file that is there is damaged.
    """
    known, file = KNOWN_WEIGHTS[name], fetched_file(name, folder)
    if file.exists():
        try:
            read_weights(file)
        except CheckpointError as error:
            raise CheckpointError(f"{error}; delete the file and run the command again") from error
        say(f"{file} is there already")
        return file
    make_folder(file.parent)
    base, _, original = known.url.rpartition("/")
    url = f"{mirror.rstrip('/') or base}/{original}"
    say(f"downloading {url} ({known.size / 1e6:.0f} MB)")

    def in_megabytes(had: int, total: int) -> None:
        if show is not None:
            show(f"MB of {original}", had // 10**6, max(total, had) // 10**6)

    downloaded = file.parent / original
    fetch(Wanted(url, known.size, f"sha256:{known.sha256}"), downloaded, on_bytes=in_megabytes)
    import_weights(downloaded, file)
    downloaded.unlink()
    return file
