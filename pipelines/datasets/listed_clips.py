"""Finds the files of clips that are listed as parts of videos on YouTube, whole or cut. No video is opened."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Collection, Sequence
from dataclasses import dataclass

from pipelines.datasets.entries import Entry, Missing
from pipelines.datasets.lists.listed_videos import ClipLists
from pipelines.datasets.split_names import split_named
from pipelines.datasets.text_files import first_ten


@dataclass(frozen=True)
class FoundClips:
    """The clips that are there, those that are missing, both in the order of the lists, and warnings."""

    entries: list[Entry]
    missing: tuple[Missing, ...]
    warnings: list[str]


def find_clips(listed: ClipLists, videos: Collection[str]) -> FoundClips:
    """The file of each clip among `videos`, which are paths relative to the root.

    Files are found by their names, in any folder: those of the clip alone, as ``ID_000010_000020.mp4``, and those of
    the whole video, as ``ID.mp4``, of which only the frames of the clip are used. A file of the clip alone is
    preferred. Of several files the one in the folder of its class is taken.
    """
    by_stem: dict[str, list[str]] = defaultdict(list)
    for path in sorted(videos):
        by_stem[path.rpartition("/")[2].rpartition(".")[0]].append(path)
    entries: list[Entry] = []
    missing: list[Missing] = []
    several: list[str] = []
    taken: set[tuple[str, float, float]] = set()
    for clip in listed.clips:
        name = listed.classes[clip.label]
        cut = by_stem.get(clip.cut, []) if clip.cut else []
        uncut = next((by_stem[stem] for stem in clip.uncut if stem in by_stem), [])
        if not cut and not uncut:
            missing.append(Missing(f"{name}/{clip.cut}" if clip.cut else clip.name, clip.split))
            continue
        path, alike = _best(cut or uncut, name, clip.split)
        several += [path] * (alike > 1)
        span = None if cut else (clip.begin, clip.end)
        if (path, *(span or (0.0, 0.0))) not in taken:
            taken.add((path, *(span or (0.0, 0.0))))
            entries.append(Entry(path, clip.label, clip.split, span, uncut=not clip.cut))
    warnings = [f"{len(several)} clips have several files, one is taken: {first_ten(several)}"] if several else []
    return FoundClips(entries, tuple(missing), warnings)


def _best(paths: Sequence[str], name: str, split: str) -> tuple[str, int]:
    """(the path that fits a clip of class `name` best, how many paths fit equally well), by the names of folders."""
    if len(paths) == 1:
        return paths[0], 1

    def suits(path: str) -> tuple[bool, bool]:
        folders = [_plain(folder) for folder in path.split("/")[:-1]]
        return _plain(name) in folders, any(split_named(folder) == split for folder in folders)

    best = max(map(suits, paths))
    alike = [path for path in paths if suits(path) == best]
    return alike[0], len(alike)


def _plain(name: str) -> str:
    """The name of a class or folder in lower case, words only, so that ``Riding_a bike`` equals ``riding a bike``."""
    return re.sub(r"[^a-z0-9]+", " ", name.lower()).strip()
