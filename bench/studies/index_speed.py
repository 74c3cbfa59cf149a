"""`bench index`: files indexed a second, and how a very large index opens and shuffles."""

from __future__ import annotations

import json
import shutil
import sqlite3
import tempfile
from contextlib import closing
from pathlib import Path
from statistics import median
from time import process_time

import numpy as np

from bench.measuring.fresh_python import output_of
from bench.measuring.turns import Say
from bench.reporting.results import StudyReport, study_report
from bench.videos.selection import video_folder
from pipelines.index.video_index import VideoIndex

_PASSES = 5
_COLUMNS = ("id", "label", "split", "num_frames", "height", "width")


def measure_index(data: Path | None, videos: int, command: str, say: Say) -> StudyReport:
    """A report of indexing the files of `data` (None: bench's own), and of an index of `videos` rows made from them."""
    with video_folder(data, say) as root, tempfile.TemporaryDirectory(prefix="r3d-fast-bench-") as name:
        folder = Path(name)
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
    """Make `path` an index of `videos` rows: those of `small`, over and over, without their packet tables."""
    shutil.copy(small.path, path)
    copies = -(-videos // len(small))
    with closing(sqlite3.connect(path)) as db, db:
        fields = [row[1] for row in db.execute("PRAGMA table_info(videos)") if row[1] not in ("id", "path", "packets")]
        db.execute("PRAGMA synchronous = OFF")
        db.execute(
            f"WITH RECURSIVE n(k) AS (SELECT 1 UNION ALL SELECT k + 1 FROM n WHERE k < {copies - 1}) "
            f"INSERT INTO videos (path, packets, {', '.join(fields)}) "
            f"SELECT path || '#' || k, x'', {', '.join(fields)} FROM videos, n LIMIT {videos - len(small)}"
        )
        rows = db.execute(f"SELECT {', '.join(_COLUMNS)} FROM videos ORDER BY path")
        table = np.array([(i, label, 0, *rest) for i, label, _, *rest in rows], np.int32)
        for number, name in enumerate(_COLUMNS):
            blob = np.ascontiguousarray(table[:, number]).tobytes()
            db.execute("UPDATE columns SET data = ? WHERE name = ?", (blob, "rowid" if name == "id" else name))
