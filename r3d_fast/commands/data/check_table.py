"""What `data check` found, as a table for the terminal and as JSON values."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict
from typing import Any

from pipelines.checks.check import Check, Spread
from pipelines.checks.findings import findings_of
from r3d_fast.commands.data.index_table import class_lines

_SHOWN = 10  # names under each finding
_MOST = 6  # sizes, codecs and suffixes


def check_json(check: Check) -> dict[str, Any]:
    """The check and its findings, as JSON values."""
    return {**asdict(check), "videos": check.videos, "findings": [asdict(item) for item in findings_of(check)]}


def print_check(check: Check, say: Callable[[str], None]) -> None:
    """Pass the lines of a table of `check` to `say`: what is there, then what follows from it."""
    splits = ", ".join(f"{count} {split}" for split, count in check.splits.items())
    say(f"index    {check.index}")
    say(f"videos   {check.videos} ({splits})" if check.videos else "videos   0")
    for line in class_lines({item.name: item.videos for item in check.classes}, _SHOWN):
        say(f"  {line}")
    if check.rule:
        say(f"held out {check.rule}")
    if check.lengths is not None:
        say(f"lengths  {_range(check.lengths, 's')}")
    if check.rates is not None:
        say(f"rates    {_range(check.rates, 'frames a second')}")
    for title, counts in (("sizes", check.sizes), ("codecs", check.codecs), ("ignored", check.ignored)):
        if counts:
            say(f"{title:8} {_listed(counts)}")
    decoded = "none; --full decodes all" if check.decoded is None else f"{check.decoded} files from start to end"
    say(f"decoded  {decoded}")
    _print_findings(check, say)


def _print_findings(check: Check, say: Callable[[str], None]) -> None:
    findings = findings_of(check)
    for level in ("problem", "warning", "note"):
        those = [finding for finding in findings if finding.level == level]
        if those or level == "problem":
            say(f"{level + 's':8} {len(those)}")
        for finding in those:
            say(f"  {finding.text}" + (":" if finding.names else ""))
            for name in finding.names[:_SHOWN]:
                say(f"    {name}")
            if len(finding.names) > _SHOWN:
                say(f"    and {len(finding.names) - _SHOWN} more (--json FILE lists all)")


def _range(spread: Spread, unit: str) -> str:
    """The ends and the median of many values: "1.8 to 10.3 s (median 5.3)"."""
    if spread.low == spread.high:
        return f"{_number(spread.low)} {unit}"
    return f"{_number(spread.low)} to {_number(spread.high)} {unit} (median {_number(spread.median)})"


def _number(value: float) -> str:
    return f"{round(value, 2):g}"


def _listed(counts: Mapping[str, int]) -> str:
    """The most frequent of many values, each with its number: "320x240 (96), 640x480 (3) and 2 more"."""
    first = [f"{name} ({count})" for name, count in list(counts.items())[:_MOST]]
    return ", ".join(first) + (f" and {len(counts) - _MOST} more" if len(counts) > _MOST else "")
