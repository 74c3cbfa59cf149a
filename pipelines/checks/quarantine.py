"""Enters into the quarantine of an index what a full check has proven."""

from __future__ import annotations

from contextlib import suppress

from pipelines.checks.check import Check
from pipelines.containers.file_checks import TOO_DAMAGED
from pipelines.index.known_bad import BadVideo, KnownBad
from pipelines.index.video_index import VideoIndex


def quarantine(index: VideoIndex, check: Check, most_corrupt: float) -> list[BadVideo]:
    """Enter the files that can't be decoded as they were indexed, and those that are too damaged; gives the entries.

    A file is too damaged if more than the share `most_corrupt` of its frames is. Raises UsageError if the file of the
    quarantine can't be written.
    """
    reasons = {name: (TOO_DAMAGED, detail) for name, detail in check.damaged(most_corrupt).items()}
    reasons |= {item.name: (item.reason, item.detail) for item in check.proven}
    entries = []
    for path, (reason, detail) in sorted(reasons.items()):
        with suppress(OSError):  # it is gone by now
            entries.append(BadVideo.of_file(index.root, path, None, reason, detail))
    KnownBad(index.path).add(*entries)
    return entries
