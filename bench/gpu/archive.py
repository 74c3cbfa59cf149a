"""The one file to send: what `bench gpu` measured and said, without names of people, hosts and folders."""

from __future__ import annotations

import getpass
import io
import json
import os
import re
import socket
import sys
import tarfile
import tempfile
import time
from contextlib import suppress
from pathlib import Path

from bench.gpu.plan import GpuSettings
from bench.gpu.redaction import is_relative, redacted, still_names
from pipelines.input.credentials import HIDDEN, secret_values
from pipelines.output.files import new_file, write_json

_KINDS = {".json", ".jsonl", ".log", ".txt", ".xml", ".yaml"}
_MOST_BYTES = 4_000_000  # of one file: of a longer one the end
_LONGEST_LINE = 10_000  # characters, of those that may be left out
_AT_TOP = ("report.txt", "steps.json", "card.json")
_OF_RUN = ("config.yaml", "env.json", "metrics.jsonl")  # of the run folder; not its checkpoints
_HERE = Path(__file__).resolve().parents[2]
_NOTED = ".hidden.json"  # not archived, as its name begins with a dot
# Names of users and hosts that are usual words, and often words of what is archived.
_USUAL = (
    "root", "user", "users", "admin", "nobody", "ubuntu", "debian", "docker", "jovyan", "runner", "worker", "host",
    "localhost", "local", "server", "node", "gpu", "cpu", "cuda", "nvidia", "dali", "paddle", "python", "data", "test",
    "tests", "train", "bench", "model", "name", "video", "videos", "home", "work", "dev", "max", "min", "will",
)  # fmt: skip


def archive_path(out: Path, host: str | None = None, date: str | None = None) -> Path:
    """Where the archive goes. `host` (default: this one) keeps letters, digits and dashes of its first label only."""
    name = socket.gethostname() if host is None else host
    name = re.sub(r"[^a-z0-9]+", "-", name.split(".")[0].lower()).strip("-")[:40] or "host"
    return out / f"r3d-fast-gpu-{name}-{date or time.strftime('%Y%m%d')}.tgz"


def write_archive(settings: GpuSettings) -> Path:
    """The archive, written of what is in the folder now: texts alone, each without what `hidden_words` names.

    Raises UsageError where it can't be written.
    """
    path, words = archive_path(settings.out), hidden_words(settings)
    files = [file for file in sorted(settings.out.rglob("*")) if _belongs(file, settings.out)]
    with new_file(path, "free space, and run the same again") as whole, tarfile.open(fileobj=whole, mode="w:gz") as tar:
        for file in files:
            text = _without_secrets(redacted(_text(file), words))
            if still_names(text, words):
                text = f"{file.name} is left out: a folder's name could not be taken out of it\n"
            content = text.encode(errors="replace")
            entry = tarfile.TarInfo(f"{path.stem}/{file.relative_to(settings.out)}")
            entry.size, entry.mtime = len(content), int(file.stat().st_mtime)
            tar.addfile(entry, io.BytesIO(content))
    return path


def _without_secrets(text: str) -> str:
    """`text` without the secrets that are in this environment, whoever wrote them there."""
    for value in secret_values(os.environ):
        text = text.replace(value, HIDDEN)
    return text


def hidden_words(settings: GpuSettings) -> dict[str, str]:
    """What must not be told, and what stands for it, longest first: folders, and the names of user and host.

    Folders and names of earlier runs with the same `out` are among them, as `note_hidden` left them. Names that are
    usual words are not hidden: they tell nothing, and would be found where they mean something else.
    """
    words = {str(_HERE): "CHECKOUT", sys.prefix: "PYTHON"}
    if (temporary := tempfile.gettempdir()) != "/tmp":
        words |= {temporary: "TMP", os.path.realpath(temporary): "TMP"}
    with suppress(RuntimeError):  # a user without a home, as in a container
        words[str(Path.home())] = "~"
    for folder, stand_in in ((settings.out, "OUT"), (settings.data, "DATA"), (settings.lists, "LISTS")):
        if folder is not None:
            words |= {str(folder.absolute()): stand_in, str(folder.resolve()): stand_in}
    with suppress(OSError, KeyError):  # a user without a name
        words[getpass.getuser()] = "USER"
    host = socket.gethostname()
    words |= {host: "HOST", host.split(".")[0]: "HOST"}
    for word, stand_in in _noted(settings.out).items():
        words.setdefault(word, stand_in if stand_in in ("USER", "HOST", "~") else f"EARLIER-{stand_in}")
    for word, stand_in in list(words.items()):
        # Pytest, which runs in the checkout, writes folders as they are seen from there.
        seen = os.path.relpath(word, _HERE) if word.startswith("/") else ""
        while is_relative(seen) and not seen.endswith(".."):
            words.setdefault(seen, stand_in)
            seen, stand_in = seen.rpartition("/")[0], f"{stand_in}/.."
    return {word: words[word] for word in sorted(words, key=len, reverse=True) if _tells(word)}


def note_hidden(settings: GpuSettings) -> None:
    """Note in the folder `out`, which exists, what is hidden, for the archives of later runs that have other settings.

    Raises UsageError where it can't be written.
    """
    words = hidden_words(settings)
    noted = {word: words[word].removeprefix("EARLIER-") for word in words if not is_relative(word)}
    write_json(settings.out / _NOTED, noted)


def _tells(word: str) -> bool:
    """Whether a path or a name tells something: a name of at least three signs, not a number, not a usual word."""
    if word.startswith("/"):
        return word != "/"
    return len(word) > 2 and re.search(r"[^\W\d]", word) is not None and word.lower() not in _USUAL


def _noted(out: Path) -> dict[str, str]:
    try:
        words = json.loads((out / _NOTED).read_text(encoding="utf-8"))
        return {str(word): str(stand_in) for word, stand_in in words.items()}
    except (OSError, ValueError, AttributeError):
        return {}


def _belongs(file: Path, out: Path) -> bool:
    """Whether a file is one of those that are sent."""
    place = file.relative_to(out).parts
    if file.suffix not in _KINDS or file.name.startswith(".") or file.is_symlink() or not file.is_file():
        return False
    if len(place) == 1:  # others may be of whoever chose the folder
        return file.name in _AT_TOP
    return place[0] in ("logs", "results") or (place[0] == "run" and file.name in _OF_RUN)


def _text(file: Path) -> str:
    """The text of a file; of a very long one its end."""
    with file.open("rb") as stream:
        stream.seek(max(0, file.stat().st_size - _MOST_BYTES))
        text = stream.read().decode(errors="replace")
    # The first line of the end of a file may begin within the name of a folder.
    return text if file.stat().st_size <= _MOST_BYTES else text[text.find("\n", 0, _LONGEST_LINE) + 1 :]
