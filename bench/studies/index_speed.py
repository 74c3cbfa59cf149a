"""`bench index`: files indexed a second, and how a very large index opens and shuffles."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from statistics import median
from time import process_time

from bench.measuring.fresh_python import output_of
from bench.measuring.turns import Say
from bench.reporting.results import StudyReport, study_report
from bench.videos.selection import video_folder
from pipelines.containers.file_checks import ACCEPT_WHOLE
from pipelines.datasets.entries import Dataset, Entry
from pipelines.index.database import write_database
from pipelines.index.video_index import VideoIndex
from pipelines.index.video_rows import rows_of
from pipelines.output.temporary import temporary_folder

_PASSES = 5


def measure_index(data: Path | None, videos: int, command: str, say: Say) -> StudyReport:
    """A report of indexing the files of `data` (None: bench's own), and of an index of `videos` rows made from them."""
    with video_folder(data, say) as root, temporary_folder() as folder:
        rates = []
        for number in range(_PASSES):
            begin = process_time()
            small = VideoIndex.build(root, val_fraction=0.0, index=folder / f"{number}.r3dindex", workers=1)
            rates.append((len(small) + len(small.quarantined)) / (process_time() - begin))
        say(f"making an index of {videos} rows")
        large = folder / "large.r3dindex"
        _multiply(small, large, videos)
        say("opening and shuffling it")
        opened = json.loads(output_of("bench.studies.large_index", large))
    figures = {
        "files": len(small),
        "files per CPU second": {
            "median": round(median(rates)), "low": round(min(rates)), "high": round(max(rates)), "passes": _PASSES,
        },
        "rows of the large index": videos,
        **opened,
    }  # fmt: skip
    return study_report("index", command, figures)


def _multiply(small: VideoIndex, path: Path, videos: int) -> None:
    """Make `path` an index of `videos` rows: those of `small`, over and over, each with the packets of one frame."""
    rows = []
    for record in (small[number] for number in range(len(small))):
        first = record.packets.part(0, 1)
        rows.append(rows_of(replace(record, num_frames=1, table=first.to_bytes())))
    split, copies = small.splits[0], -(-videos // len(small))
    keys = sorted((f"{fields[0]}#{copy}", number) for number, (fields, _) in enumerate(rows) for copy in range(copies))
    entries = tuple(Entry(name, small[number].label, split) for name, number in keys[:videos])
    found = ((((name, *rows[number][0][1:]), rows[number][1])) for name, number in keys[:videos])
    path.touch()
    data = Dataset(small.kind, small.classes, entries, (), ())
    write_database(path, small.root, data, ACCEPT_WHOLE, zip(entries, found, strict=True))
