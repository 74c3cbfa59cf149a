"""Finds and runs what unpacks RAR archives on this machine: a library from PyPI, or one of several programs.

Archives without compression need neither, because rarfile can read them.
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
from pipelines.machine.processes import end_with_parent
from r3d_fast.interrupt import interrupts_deferred

if TYPE_CHECKING:  # not at run time, because the doctor uses this module even if rarfile is not installed
    from r3d_fast.download.rar import Member

OnFile = Callable[[], None]
TO_DO = "pip install 'r3d-fast[download]' (or, on Debian and Ubuntu: apt-get install libarchive-tools unar)"
# Each command unpacks the archive into an empty folder. The names in the archive were checked before.
_COMMANDS = {
    "unrar": ("unrar", "x", "-o+", "-p-", "-idq", "--", "{archive}", "{folder}/"),
    "bsdtar": ("bsdtar", "-x", "-f", "{archive}", "-C", "{folder}"),
    "unar": ("unar", "-quiet", "-force-overwrite", "-no-directory", "-output-directory", "{folder}", "{archive}"),
    "7zz": ("7zz", "x", "-y", "-p", "-bso0", "-bsp0", "-o{folder}", "--", "{archive}"),
    "7z": ("7z", "x", "-y", "-p", "-bso0", "-bsp0", "-o{folder}", "--", "{archive}"),
}
# A command, and what it prints if the program can really unpack RAR. Some programs of these names can't: unrar-free 0.1
# does not know RAR 3 and later, and Debian's 7-Zip has no RAR support.
_PROOFS = {"unrar": (("unrar",), "Alexander Roshal"), "7zz": (("7zz", "i"), "Rar5"), "7z": (("7z", "i"), "Rar5")}
LIBRARY = "unrar2-cffi"


def rar_readers() -> list[str]:
    """The names of the readers that can unpack RAR archives here, the best first: the library, then the programs."""
    return ([LIBRARY] if _has_library() else []) + [name for name in _COMMANDS if _works(name)]


def describe_readers() -> str:
    """The names of those readers as text, with the version of the library; empty if there are none."""
    return ", ".join(f"{name} {metadata.version(name)}" if name == LIBRARY else name for name in rar_readers())


def unpack_with(name: str, archive: Path, members: Sequence[Member], folder: Path, on_file: OnFile) -> None:
    """Unpack `archive`, whose members are `members`, into the empty `folder` with the reader `name`.

    Raises DataError if the reader fails, OSError if a file can't be written.
    """
    if name == LIBRARY:
        _by_library(archive, members, folder, on_file)
        return
    command = [part.format(archive=archive.absolute(), folder=folder.absolute()) for part in _COMMANDS[name]]
    done = subprocess.run(
        command, stdin=subprocess.DEVNULL, capture_output=True, check=False, preexec_fn=end_with_parent
    )
    if done.returncode:
        said = (done.stderr + done.stdout).decode(errors="replace").strip().splitlines()
        reason = " ".join(said[-3:])[:300] or "no reason given"
        raise DataError(f"{name} ended with exit code {done.returncode}: {reason}")


def _has_library() -> bool:
    try:
        return find_spec("unrar.cffi") is not None
    except ModuleNotFoundError:
        return False


def _works(name: str) -> bool:
    """Whether the program `name` is installed and can unpack RAR."""
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
    """Unpack with the library. Raises DataError and OSError like `unpack_with`."""
    from unrar.cffi.unrarlib import BadRarFile, RarArchive

    failures: list[OSError] = []

    def guarded(write: Callable[[bytes], object]) -> Callable[[bytes], None]:
        def take(data: bytes) -> None:
            # If this raised an error, the library would only print it and continue.
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
                with interrupts_deferred(), _writing(member, folder) as write:
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
        raise DataError(f"{LIBRARY}: it unpacked only {count} of {len(members)} files")


@contextmanager
def _writing(member: Member, folder: Path) -> Iterator[Callable[[bytes], object]]:
    """A function that writes bytes of the member to its file under `folder`; at the end the size is checked."""
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
