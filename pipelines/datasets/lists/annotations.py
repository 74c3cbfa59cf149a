"""Reads JSON files with a database of videos: those of ActivityNet, and those that the code of Hara et al. 2018 makes.

Both are ``{"database": {NAME: {"subset": "training", "annotations": ...}}}``. In ActivityNet's, NAME is the id of a
video at YouTube, and ``annotations`` a list of ``{"segment": [begin, end], "label": ...}``, in seconds. In the other,
``annotations`` is one ``{"label": ...}``, and ``labels`` beside the database lists the classes; its segments are
numbers of extracted pictures and are not read.
"""

from __future__ import annotations

import json
import math
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pipelines.datasets.lists.kinetics import kinetics_clip, kinetics_kind
from pipelines.datasets.lists.listed_videos import ClipLists, ListedClip, ListedVideo, Lists
from pipelines.datasets.split_names import final_split, split_named
from pipelines.datasets.text_files import escaped, first_ten, names_in, read_text
from pipelines.errors import ListError

_ACTIVITYNET = re.compile(r"activity_?net.*\.json", re.IGNORECASE)
_KINETICS_NAME = re.compile(r"(.+)_([0-9]{6})_([0-9]{6})", re.DOTALL)
_VIDEO = 'expected "NAME": {"subset": "training", "annotations": ...}'
_SEGMENT = 'expected {"segment": [begin, end], "label": "CLASS"} with seconds'


def find_annotations(lists: Path) -> tuple[Path, dict[str, Any]] | None:
    """(file, its content) of the JSON with a database that `lists` is or, in a folder, of ActivityNet's; None if none.

    Raises ListError where a folder has several, and where such a file can't be read.
    """
    if lists.is_dir():
        named = [lists / name for name in names_in(lists) if _ACTIVITYNET.fullmatch(name)]
    else:
        named = [lists] if lists.suffix.lower() == ".json" and lists.is_file() else []
    found = [(file, content) for file in named if (content := _content(file)) is not None]
    if len(found) > 1:
        shown = " and ".join(escaped(str(file)) for file, _ in found)
        raise ListError(f"lists {escaped(str(lists))}: holds {shown}; expected one of them: give that file as lists")
    return found[0] if found else None


def read_annotations(file: Path, content: dict[str, Any]) -> ClipLists | Lists:
    """What the `content` of `file` lists: parts of videos, or for UCF-101 and HMDB-51 of Hara et al. whole videos.

    Videos without labels, as those of testing, are left out and counted in a warning. Raises ListError, with the name
    of the video, for anything that can't be used.
    """
    where = escaped(str(file))
    labels = content.get("labels")
    videos = list(_videos(content["database"], where))
    if labels is None:
        return _activitynet(videos, where, None)
    if any(isinstance(noted, list) for _, _, noted in videos):
        return _activitynet(videos, where, _classes(labels, where))
    return _of_hara(videos, _classes(labels, where), where)


def _content(file: Path) -> dict[str, Any] | None:
    """The content of a JSON file that has a database, else None."""
    text = read_text(file)
    if not text.lstrip().startswith("{") or '"database"' not in text:
        return None  # one of another form
    try:
        content = json.loads(text)
    except json.JSONDecodeError as problem:
        raise ListError(
            f"{escaped(str(file))}:{problem.lineno}: no valid JSON ({problem.msg}); expected the whole file: download "
            "it again"
        ) from problem
    except (RecursionError, ValueError) as problem:  # too many levels, or a number of more than 4300 digits
        raise ListError(f"{escaped(str(file))}: JSON that can't be read ({problem}); {_VIDEO}") from problem
    return content if isinstance(content.get("database"), dict) else None


def _videos(database: dict[str, Any], where: str) -> Iterator[tuple[str, str, Any]]:
    """(name, split, annotations) of each video."""
    for name, item in database.items():
        subset = item.get("subset") if isinstance(item, dict) else None
        if not isinstance(subset, str) or not name or "/" in name:
            raise ListError(f"{where}: {name!r}: {_shown(item)}; {_VIDEO}")
        split = split_named(subset)
        if not split:
            raise ListError(f"{where}: {name!r}: subset {subset!r}; expected training, validation or testing")
        yield name, split, item.get("annotations")


def _classes(labels: Any, where: str) -> tuple[str, ...]:
    """The classes in the order of `labels`, the list beside the database."""
    named = isinstance(labels, list) and all(isinstance(label, str) and label for label in labels)
    if not named or len(set(labels)) < len(labels):
        raise ListError(f"{where}: labels {_shown(labels)}; expected the names of the classes, each once")
    return tuple(labels)


def _activitynet(videos: list[tuple[str, str, Any]], where: str, labels: tuple[str, ...] | None) -> ClipLists:
    """The segments; classes are numbered as in `labels`, or without them in the order of their names.

    An empty segment is left out with a warning.
    """
    clips: list[tuple[str, ListedClip]] = []
    unlabelled: Counter[str] = Counter()
    for name, split, noted in videos:
        if not isinstance(noted, list):
            raise ListError(f"{where}: {name!r}: annotations {_shown(noted)}; expected a list of segments")
        unlabelled[split] += not noted
        clips += [_segment(name, split, item, where) for item in noted]
    classes = labels or tuple(sorted({label for label, _ in clips}))
    for label, clip in clips:
        if label not in classes:
            raise ListError(f"{where}: {clip.name}: label {label!r}; expected one of `labels`")
    present = {clip.split for _, clip in clips}
    label_of: dict[tuple[str, float, float], str] = {}
    kept: list[ListedClip] = []
    empty, again = [], []
    for label, clip in clips:
        key = clip.uncut[0], clip.begin, clip.end
        if clip.begin >= clip.end:
            empty.append(clip.name)
        elif key not in label_of:
            label_of[key] = label
            kept.append(clip._replace(label=classes.index(label), split=final_split(clip.split, present)))
        elif label_of[key] == label:
            again.append(clip.name)
        else:
            raise ListError(f"{where}: {clip.name} is {label_of[key]!r} and {label!r}; expected one label a segment")
    warnings = _about_unlabelled(unlabelled)
    odd = {"end before they begin and are left out": empty, "are listed again and ignored": again}
    warnings += [f"segments that {what} ({len(names)}): {first_ten(names)}" for what, names in odd.items() if names]
    if not kept:
        raise ListError(f"{where}: no labelled segment; {_SEGMENT}")
    return ClipLists("activitynet", where, classes, tuple(kept), tuple(warnings))


def _segment(name: str, split: str, item: Any, where: str) -> tuple[str, ListedClip]:
    """(label, clip without its label) of an annotation."""
    label = item.get("label") if isinstance(item, dict) else None
    times = item.get("segment") if isinstance(item, dict) else None
    if not isinstance(label, str) or not label.strip() or not isinstance(times, list) or len(times) != 2:
        raise ListError(f"{where}: {name!r}: {_shown(item)}; {_SEGMENT}")
    if not all(isinstance(t, (int, float)) and not isinstance(t, bool) and math.isfinite(t) for t in times):
        raise ListError(f"{where}: {name!r}: {_shown(item)}; {_SEGMENT}")
    begin, end = (max(0.0, float(t)) for t in times)
    return label.strip(), ListedClip(-1, "", (f"v_{name}", name), begin, end, split, f"{where}: {name}")


def _of_hara(videos: list[tuple[str, str, Any]], labels: tuple[str, ...], where: str) -> ClipLists | Lists:
    """The videos of a file that the authors' code made; classes are numbered in the order of `labels`."""
    number = {label: i for i, label in enumerate(labels)}
    unlabelled: Counter[str] = Counter()
    rows: list[tuple[str, str, str]] = []
    for name, split, noted in videos:
        label = noted.get("label") if isinstance(noted, dict) else None
        if label is None and isinstance(noted, dict):
            unlabelled[split] += 1
        elif not isinstance(label, str) or label not in number:
            raise ListError(f"{where}: {name!r}: annotations {_shown(noted)}; expected a label of `labels`")
        else:
            rows.append((name, label, split))
    if not rows:
        raise ListError(f"{where}: no video has a label; {_VIDEO}")
    warnings, classes = tuple(_about_unlabelled(unlabelled)), labels
    names = [_KINETICS_NAME.fullmatch(name) for name, _, _ in rows]
    if all(names):
        clips = [
            kinetics_clip(match[1], float(match[2]), float(match[3]), split, f"{where}: {name}")._replace(
                label=number[label]
            )
            for (name, label, split), match in zip(rows, names, strict=True)
            if match
        ]
        return ClipLists(kinetics_kind(classes), where, classes, tuple(clips), warnings)
    present = {split for _, _, split in rows}
    listed = [
        ListedVideo(f"{label}/{name}", number[label], final_split(split, present), f"{where}:{name}")
        for name, label, split in rows
    ]
    return Lists("annotations", classes, tuple(listed), frozenset(), None, warnings, made_elsewhere=True)


def _about_unlabelled(counts: Counter[str]) -> list[str]:
    return [f"videos without a label are left out: {count} of {split}" for split, count in counts.items() if count]


def _shown(value: Any) -> str:
    """The beginning of a JSON value, for a message."""
    text = json.dumps(value)
    return text[:80] + "..." * (len(text) > 80)
