"""The one file to send: what `bench gpu` measured and said, without names of people, hosts and folders."""

from __future__ import annotations

import io
import json
import re
import socket
import sys
import tarfile
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from bench.gpu.plan import GpuSettings
from r3d_fast.files import new_file

_KINDS = {".json", ".jsonl", ".log", ".txt", ".xml", ".yaml"}
_MOST_BYTES = 4_000_000  # of one file: of a longer one the end
_OF_RUN = ("config.yaml", "env.json", "metrics.jsonl")  # of the run folder; not its checkpoints
_HERE = Path(__file__).resolve().parents[2]


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
            text = redacted(_text(file), words).encode()
            entry = tarfile.TarInfo(f"{path.stem}/{file.relative_to(settings.out)}")
            entry.size, entry.mtime = len(text), int(file.stat().st_mtime)
            tar.addfile(entry, io.BytesIO(text))
    return path


def hidden_words(settings: GpuSettings) -> dict[str, str]:
    """What must not be told, and what stands for it: folders, and a host whose name is no usual word; longest first."""
    words = {str(_HERE): "CHECKOUT", sys.prefix: "PYTHON"}
    with suppress(RuntimeError):  # a user without a home, as in a container
        words[str(Path.home())] = "~"
    for folder, stand_in in ((settings.out, "OUT"), (settings.data, "DATA"), (settings.lists, "LISTS")):
        if folder is not None:
            words |= {str(folder.absolute()): stand_in, str(folder.resolve()): stand_in}
    host = socket.gethostname()
    if len(host) > 4 and re.search(r"[\d.-]", host):
        words |= {host: "HOST", host.split(".")[0]: "HOST"}
    words |= {json.dumps(word)[1:-1]: stand_in for word, stand_in in words.items()}
    return {word: words[word] for word in sorted(words, key=len, reverse=True) if len(word) > 1}


def redacted(text: str, words: Mapping[str, str]) -> str:
    """`text` with what is hidden replaced; folders below /home lose the user's name, addresses their passwords."""
    for word, stand_in in words.items():
        text = re.sub(rf"(?<![\w-]){re.escape(word)}(?![\w-])", stand_in, text)
    text = re.sub(r'\bhostname="[^"]*"', 'hostname=""', text)  # of pytest's file
    text = re.sub(r"(/(?:home|Users))/[^/\s\"']+", r"\1/USER", text)
    return re.sub(r"(\w://)[^/\s\"'@]+@", r"\1", text)


def _belongs(file: Path, out: Path) -> bool:
    """Whether a file is one of those that are sent."""
    place = file.relative_to(out).parts
    if file.suffix not in _KINDS or file.name.startswith(".") or file.is_symlink() or not file.is_file():
        return False
    return len(place) == 1 or place[0] in ("logs", "results") or (place[0] == "run" and file.name in _OF_RUN)


def _text(file: Path) -> str:
    """The text of a file; of a very long one its end."""
    with file.open("rb") as stream:
        stream.seek(max(0, file.stat().st_size - _MOST_BYTES))
        return stream.read().decode(errors="replace")
