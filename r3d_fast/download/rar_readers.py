"""What unpacks RAR archives on this machine: a library of PyPI, or one of the tools that systems have.

Stored files need none: rarfile reads them.
"""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from pipelines.errors import DataError

if TYPE_CHECKING:  # the doctor looks for readers where rarfile is not installed too
    from r3d_fast.download.rar import Member

OnFile = Callable[[], None]
TO_DO = "pip install 'r3d-fast[download]' (or, on Debian and Ubuntu: apt-get install libarchive-tools unar)"
# Each puts what is in the archive into a folder that is empty. The names in it were looked at before.
_COMMANDS = {
    "unrar": ("unrar", "x", "-o+", "-p-", "-idq", "--", "{archive}", "{folder}/"),
    "bsdtar": ("bsdtar", "-x", "-f", "{archive}", "-C", "{folder}"),
    "unar": ("unar", "-quiet", "-force-overwrite", "-no-directory", "-output-directory", "{folder}", "{archive}"),
    "7zz": ("7zz", "x", "-y", "-p", "-bso0", "-bsp0", "-o{folder}", "--", "{archive}"),
    "7z": ("7z", "x", "-y", "-p", "-bso0", "-bsp0", "-o{folder}", "--", "{archive}"),
}
# What a program says that can read RAR: others have the name, but not the means. unrar-free 0.1 can't unpack RAR 3 and
# later, and Debian's 7-Zip comes without RAR.
_PROOFS = {"unrar": (("unrar",), "Alexander Roshal"), "7zz": (("7zz", "i"), "Rar5"), "7z": (("7z", "i"), "Rar5")}
LIBRARY = "unrar2-cffi"


def rar_readers() -> list[str]:
    """The names of what can unpack RAR archives here, best first: the library, then tools."""
    return ([LIBRARY] if _has_library() else []) + [name for name in _COMMANDS if _works(name)]


def describe_readers() -> str:
    """What unpacks RAR archives here, with its version where that is known; empty where nothing does."""
    return ", ".join(f"{name} {metadata.version(name)}" if name == LIBRARY else name for name in rar_readers())


def unpack_with(name: str, archive: Path, members: Sequence[Member], folder: Path, on_file: OnFile) -> None:
    """Unpack `archive`, which has `members`, into the empty `folder` with the reader `name`.

    Raises DataError where it can't, OSError where a file can't be written.
    """
    if name == LIBRARY:
        _by_library(archive, members, folder, on_file)
        return
    command = [part.format(archive=archive.absolute(), folder=folder.absolute()) for part in _COMMANDS[name]]
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, check=False)
    if done.returncode:
        said = (done.stderr + done.stdout).decode(errors="replace").strip().splitlines()
        raise DataError(f"{name} ended with {done.returncode}: {' '.join(said[-3:])[:300] or 'no reason given'}")


def _has_library() -> bool:
    try:
        return find_spec("unrar.cffi") is not None
    except ModuleNotFoundError:
        return False


def _works(name: str) -> bool:
    if shutil.which(name) is None:
        return False
    command, proof = _PROOFS.get(name, ((), ""))
    if not command:
        return True
    try:
        done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, timeout=10, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return False
    return proof in (done.stdout + done.stderr).decode(errors="replace")


def _by_library(archive: Path, members: Sequence[Member], folder: Path, on_file: OnFile) -> None:
    from unrar.cffi.unrarlib import BadRarFile, RarArchive

    failures: list[OSError] = []

    def guarded(write: Callable[[bytes], object]) -> Callable[[bytes], None]:
        def take(data: bytes) -> None:
            # The library only prints what its callback raises, and goes on.
            if not failures:
                try:
                    write(data)
                except OSError as error:
                    failures.append(error)

        return take

    count = 0
    try:
        with RarArchive.open_for_processing(archive) as source:
            for member, header in zip(members, source.iterate_headers(), strict=False):
                with _writing(member, folder) as write:
                    if member.kind == "file":
                        header.test(guarded(write))
                    else:
                        header.skip()
                    if failures:
                        raise failures[0]
                count += 1
                on_file()
    except BadRarFile as error:
        raise DataError(f"{LIBRARY}: {error}") from error
    if count != len(members):
        raise DataError(f"{LIBRARY}: {count} of {len(members)} files came out")


@contextmanager
def _writing(member: Member, folder: Path) -> Iterator[Callable[[bytes], object]]:
    """What writes the member's bytes to its place under `folder`. The size is compared at the end."""
    path = folder / member.name
    if member.kind == "folder":
        path.mkdir(parents=True, exist_ok=True)
        yield lambda data: None
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("xb") as file:
        yield file.write
    if path.stat().st_size != member.size:
        raise DataError(f"{member.name}: {path.stat().st_size} bytes; expected {member.size}")
