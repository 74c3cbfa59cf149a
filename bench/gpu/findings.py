"""What the parts of `bench gpu` left in its folder, read as far as it can be read."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from bench.gpu.plan import Card, tests_file

Json = dict[str, Any]


@dataclass(frozen=True)
class Found:
    """Everything that the page is made of; JSON values.

    `card` has the fields of a Card, `parts` those of an Ending by the name of the part, `results` what each part wrote,
    by its name. `tests` counts what became of the tests, None where they weren't run, and names those that failed.
    """

    card: Json
    parts: dict[str, Json] = field(default_factory=dict)
    results: dict[str, Json] = field(default_factory=dict)
    tests: Json | None = None

    def why_not(self, name: str) -> str:
        """Why there is no result of a part, or not all of it, in words."""
        part = self.parts.get(name)
        if part is None:
            return "not asked for"
        if part["state"] == "left out":
            return str(part["says"])
        code = "" if part["code"] is None else f" with code {part['code']}"
        return f"{part['state']}{code}: {part['says']}"


def gather(out: Path, card: Card) -> Found:
    """What lies in the folder `out`; files that are missing or damaged are left out."""
    names = sorted(path.stem for path in (out / "results").glob("*.json"))
    results = {name: values for name in names if (values := _json(out / "results" / f"{name}.json")) is not None}
    return Found(asdict(card), _json(out / "steps.json") or {}, results, count_tests(tests_file(out)))


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
