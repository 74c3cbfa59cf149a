"""Reads the JSON lists of Something-Something v2, such as something-something-v2-train.json."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from pipelines.datasets.lists.listed_videos import ListLine
from pipelines.errors import ListError

_EXPECTED = "expected a list of objects with id and template, as in Something-Something v2"


def parse_json(text: str, file: str) -> list[ListLine] | None:
    """The entries of a list, or None if none has a label, as in the official list of test videos.

    The path is the ID of the video, which has no extension. The label is the template without its brackets: "Holding
    something" of "Holding [something]". Raises ListError, with the file and the line, for anything else.
    """
    try:
        content = json.loads(text)
    except json.JSONDecodeError as problem:
        raise ListError(f"{file}:{problem.lineno}: no valid JSON ({problem.msg}); {_EXPECTED}") from problem
    except (RecursionError, ValueError) as problem:  # too many levels, or a number of more than 4300 digits
        raise ListError(f"{file}: JSON that can't be read ({problem}); {_EXPECTED}") from problem
    if not isinstance(content, list) or not content:
        came = "an empty list" if content == [] else f"a JSON {_NAMES.get(type(content), 'value')}"
        raise ListError(f"{file}: {came}; {_EXPECTED}")
    lines = [_entry(item, f"{file}:{number}") for number, item in _numbered(text)]
    labelled = [line for line in lines if line.label]
    if labelled and len(labelled) < len(lines):
        bad = next(line for line in lines if not line.label)
        raise ListError(f"{bad.where}: no template for the video {bad.path!r}, others have one; {_EXPECTED}")
    return labelled or None


_NAMES = {dict: "object", list: "list", str: "string", int: "number", float: "number", bool: "value"}


def _entry(item: Any, where: str) -> ListLine:
    video = item.get("id") if isinstance(item, dict) else None
    template = item.get("template", "") if isinstance(item, dict) else None
    if isinstance(video, bool) or not isinstance(video, (str, int)) or not isinstance(template, str):
        shown = json.dumps(item)
        raise ListError(f"{where}: {shown[:80]}{'...' * (len(shown) > 80)}; {_EXPECTED}")
    return ListLine(str(video), template.replace("[", "").replace("]", "").strip(), "", where)


def _numbered(text: str) -> Iterator[tuple[int, Any]]:
    """Each item of a valid JSON list, as (number of the line on which it begins, item)."""
    decoder = json.JSONDecoder()
    at = text.index("[") + 1
    line, counted = 1, 0
    while True:
        while text[at] in " \t\r\n,":
            at += 1
        if text[at] == "]":
            return
        line += text.count("\n", counted, at)
        counted = at
        item, at = decoder.raw_decode(text, at)
        yield line, item
