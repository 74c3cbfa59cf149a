"""What the parts of `bench gpu` left in its folder, read as far as it can be read."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from bench.gpu.plan import Card, Part, tests_file

Json = dict[str, Any]


@dataclass(frozen=True)
class Found:
    """Everything that the page is made of; JSON values.

    `card` has the fields of a Card, `parts` those of an Ending by the name of the part, `results` what each part wrote,
    by its name. `tests` counts what became of the tests, None where they weren't run, and names those that failed.
    `earlier` names parts whose results are of an earlier run that was told otherwise, such as of other videos.
    """

    card: Json
    parts: dict[str, Json] = field(default_factory=dict)
    results: dict[str, Json] = field(default_factory=dict)
    tests: Json | None = None
    earlier: tuple[str, ...] = ()

    def why_not(self, name: str) -> str:
        """Why there is no result of a part, or not all of it, in words."""
        part = self.parts.get(name)
        if part is None:
            return "not asked for"
        if part["state"] == "left out":
            return str(part["says"])
        code = "" if part["code"] is None else f" with code {part['code']}"
        return f"{part['state']}{code}: {part['says']}"


def gather(out: Path, card: Card, parts: Sequence[Part] = ()) -> Found:
    """What lies in the folder `out`; files that are missing or damaged are left out.

    `parts` are all parts as they would be run now: what was found by another command is of an earlier run.
    """
    names = sorted(path.stem for path in (out / "results").glob("*.json"))
    results = {name: values for name in names if (values := _json(out / "results" / f"{name}.json")) is not None}
    endings = _json(out / "steps.json") or {}
    shown = {part.name: part.shown for part in parts}
    earlier = tuple(name for name, one in endings.items() if name in shown and one["command"] != shown[name])
    return Found(asdict(card), endings, results, count_tests(tests_file(out)), earlier)


def why_unusable(parity: Json) -> str:
    """Why the decoder could not be used: it failed for every video that it was given. Empty where it could."""
    tried = [one for key in ("made", "real") for one in parity[key] if one["verdict"] in ("right", "wrong", "failed")]
    if not tried or any(one["verdict"] != "failed" for one in tried):
        return ""
    return str(Counter(one["why"] for one in tried).most_common(1)[0][0])


def decoder_in_words(device: str) -> str:
    """DALI's decoder on a device, by its name."""
    return "DALI's decoder on the CPU" if device == "cpu" else "NVDEC"


def count_tests(path: Path) -> Json | None:
    """How many tests passed, failed and were skipped, by pytest's file `path`; None where there is no such file."""
    try:
        cases = ElementTree.parse(path).getroot().iter("testcase")
        counted: Json = {"passed": 0, "failed": [], "skipped": []}
        for case in cases:
            name = f"{case.get('classname', '')}.{case.get('name', '')}".strip(".")
            broken, skipped = _child(case, ("failure", "error")), _child(case, ("skipped",))
            if broken is not None:
                counted["failed"].append({"test": name, "why": _first_line(broken)})
            elif skipped is not None:
                counted["skipped"].append({"test": name, "why": _first_line(skipped)})
            else:
                counted["passed"] += 1
    except (OSError, ElementTree.ParseError):
        return None
    return counted


def _child(case: ElementTree.Element, tags: Sequence[str]) -> ElementTree.Element | None:
    return next((child for child in case if child.tag in tags), None)


def _first_line(element: ElementTree.Element) -> str:
    return next(iter((element.get("message") or element.text or "").strip().splitlines()), "")[:200]


def _json(path: Path) -> Json | None:
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return values if isinstance(values, dict) else None
