"""`make exact`: every encoder and container of the installed FFmpeg, read by the project and by PyAV.

Prints the table, and a line for each wrong verdict; ends with 1 if there is one.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import re
import sys
from collections import defaultdict
from pathlib import Path

import av
import crew

from exact.encoders import encoders
from exact.matrix import Pair, Row, judged, usable
from exact.muxers import Muxer, muxers
from exact.table import faults, markdown, progress

ROOT = Path(__file__).resolve().parents[3]
NAME = "exact table"
USUAL = ("avi", "matroska", "mov", "nut")  # containers that take nearly all codecs


def main() -> int:
    arguments = _arguments()
    processes = arguments.jobs or len(os.sched_getaffinity(0))
    names = [name for name in encoders() if re.fullmatch(arguments.encoders, name)]
    containers = [muxer for muxer in muxers() if re.fullmatch(arguments.containers, muxer.name)]
    print(f"{len(names)} encoders, {len(containers)} containers, {processes} processes", flush=True)
    encodings = {
        outcome.task: outcome.result or []
        for outcome in crew.run(usable, names, processes=processes, timeout_seconds=120)
    }
    first = [
        Pair(found[0], muxer, False, arguments.keep)
        for _, found in sorted(encodings.items())
        for muxer in containers
        if found
    ]
    rows = _run(first, processes)
    taken: dict[str, list[Muxer]] = defaultdict(list)
    for row in rows:
        taken[row.pair.encoding.encoder].append(row.pair.muxer)
    others = [
        Pair(encoding, muxer, True, arguments.keep)
        for name, found in sorted(encodings.items())
        for encoding in found[1:]
        for muxer in _containers(taken[name], name)
    ]
    rows += _run(others, processes)
    rows.sort(key=lambda row: (row.pair.encoding.encoder, row.pair.encoding.pix_fmt, row.pair.muxer.name))
    version = ".".join(map(str, av.library_versions["libavcodec"]))
    table = markdown(rows, f"PyAV {av.__version__} with libavcodec {version}")
    print(table)
    wrong = faults(rows)
    print("\n".join(("", *wrong, f"{len(wrong)} wrong")))
    if arguments.write:
        _write(Path(arguments.write), table)
    return 1 if wrong else 0


def _containers(taken: list[Muxer], encoder: str) -> list[Muxer]:
    """The containers for the other pixel formats of an encoder: all for raw pictures, else three."""
    usual = sorted(taken, key=lambda muxer: (muxer.name not in USUAL, muxer.name))
    return usual if encoder == "rawvideo" else usual[:3]


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="exact", description=__doc__)
    parser.add_argument("--encoders", default=".*", help="which encoders, a regular expression")
    parser.add_argument("--containers", default=".*", help="which containers, a regular expression")
    parser.add_argument("--jobs", type=int, default=0, help="processes; by default one a CPU")
    parser.add_argument("--keep", default="", metavar="FOLDER", help="keep the videos there")
    parser.add_argument("--write", default="", metavar="PAGE", help="write the table into this page")
    return parser.parse_args()


def _run(pairs: list[Pair], processes: int) -> list[Row]:
    """The rows of the pairs that FFmpeg can write."""
    rows = []
    for done, row in enumerate(judged(pairs, processes=processes), 1):
        if row.verdicts:
            rows.append(row)
            print(progress(row, done, len(pairs)), flush=True)
    return rows


def _write(page: Path, table: str) -> None:
    """Write the table into its place by the means of docs/generate.py."""
    spec = importlib.util.spec_from_file_location("generate", ROOT / "docs" / "generate.py")
    assert spec is not None
    assert spec.loader is not None
    generate = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(generate)
    page.write_text(generate.filled(page.read_text(encoding="utf-8"), NAME, table), encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())
