"""A folder that is written beside its place and then renamed: complete, or not there."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from pipelines.errors import UsageError
from r3d_fast.weights.checkpoint import sync


@contextmanager
def building(out: Path) -> Iterator[Path]:
    """A new folder beside `out`, gone afterwards unless it was renamed. Raises UsageError where none can be."""
    folder: Path | None = None
    missing = [parent for parent in out.parents if not parent.exists()]
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        folder = Path(tempfile.mkdtemp(prefix=f".{out.name}.", suffix=".tmp", dir=out.parent))
        yield folder
    except OSError as error:
        if error.errno is None:  # one of Paddle's own
            raise
        in_the_way = isinstance(error, (FileExistsError, NotADirectoryError))
        reason = "a part of the path is a file" if in_the_way else error.strerror
        raise UsageError(f"{out}: can't be written: {reason}; nothing was left there") from error
    finally:
        if folder is not None:
            shutil.rmtree(folder, ignore_errors=True)
        for parent in missing:
            with suppress(OSError):  # not empty, where all went well
                parent.rmdir()


def put_in_place(folder: Path, out: Path) -> None:
    """Put `folder` in the place of `out`, on the disk. Raises OSError, with what was there still there."""
    for path in folder.iterdir():
        path.chmod(0o666 & ~_umask())
        sync(path)
    folder.chmod(0o777 & ~_umask())
    sync(folder)
    old = folder.with_name(folder.name + ".old")
    replaces = out.exists()
    if replaces:
        out.rename(old)
    try:
        folder.rename(out)
    except OSError:
        if replaces:
            old.rename(out)
        raise
    sync(out.parent)
    shutil.rmtree(old, ignore_errors=True)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
