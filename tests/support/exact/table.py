"""The verdicts as Markdown: a line an encoder, a line a container, and what is refused or wrong."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence

from exact.forms import PLAIN
from exact.matrix import Row
from exact.verdicts import DEMUXED, EXACT, NOTED, REFUSED, SILENT, VARIES, WRONG, Verdict

MOST_SHOWN = 6  # pixel formats that a line names
WORST_FIRST = (WRONG, DEMUXED, EXACT)
ALLOWED = ", allowed"  # what ends the name of a cut form that is read with the option


def markdown(rows: Sequence[Row], versions: str) -> str:
    """All tables."""
    rows = [row for row in rows if row.verdicts]
    pairs = {(row.pair.encoding.encoder, row.pair.muxer.name) for row in rows}
    codings = {row.pair.encoding for row in rows}
    verdicts = [verdict for row in rows for verdict in row.verdicts.values()]
    wrong = sum(verdict.mark == WRONG for verdict in verdicts)
    lines = [
        f"{versions}: {len(pairs)} pairs of encoder and container, {len(rows)} with their {len(codings)} encodings "
        f"(encoder and pixel format). Of {len(verdicts)} verdicts {wrong} are wrong.",
        "",
        "| encoder | pixel formats | packets read at their offsets | by demuxing | wrong |",
        "| --- | --- | --- | --- | --- |",
        *_encoder_lines(rows),
        "",
        "| form | files |",
        "| --- | ---: |",
        *_form_lines(rows),
        "",
        "| container | encoders | keeps turns | cut: refused | taken with the option | taken, noted | nothing tells |",
        "| --- | ---: | --- | ---: | ---: | ---: | ---: |",
        *_container_lines(rows),
        "",
        "| refused, or not compared | files | for instance |",
        "| --- | ---: | --- |",
        *_reason_lines(rows),
    ]
    return "\n".join(lines)


def faults(rows: Iterable[Row]) -> list[str]:
    """A line for each wrong verdict."""
    return [
        f"{row.pair.encoding.encoder} {row.pair.encoding.pix_fmt} {row.pair.muxer.name}, {name}: {verdict.reason}"
        for row in rows
        for name, verdict in row.verdicts.items()
        if verdict.mark == WRONG
    ]


def mark_of(row: Row) -> str:
    """The mark of a pair: that of its worst form."""
    marks = {verdict.mark for verdict in row.verdicts.values()}
    whole = {verdict.mark for name, verdict in row.verdicts.items() if not name.startswith("cut")}
    return WRONG if WRONG in marks else DEMUXED if DEMUXED in whole else EXACT


def _encoder_lines(rows: Sequence[Row]) -> list[str]:
    """A line an encoder, its marks the worst of its pixel formats; raw pictures have one for each set of marks."""
    marks: dict[tuple[str, str], dict[str, str]] = defaultdict(dict)
    for row in rows:
        encoding = row.pair.encoding
        marks[encoding.encoder, encoding.pix_fmt][row.pair.muxer.name] = mark_of(row)
    groups: dict[tuple[str, object], list[str]] = defaultdict(list)
    found: dict[tuple[str, object], dict[str, str]] = defaultdict(dict)
    for (encoder, pix_fmt), those in marks.items():
        key = (encoder, tuple(sorted(those.items())) if encoder == "rawvideo" else None)
        groups[key].append(pix_fmt)
        for container, mark in those.items():
            found[key][container] = min(mark, found[key].get(container, EXACT), key=WORST_FIRST.index)
    lines = []
    for key, formats in groups.items():
        cells = [
            ", ".join(sorted(container for container, mark in found[key].items() if mark == wanted)) or "-"
            for wanted in reversed(WORST_FIRST)
        ]
        more = f" and {len(formats) - MOST_SHOWN} more" * (len(formats) > MOST_SHOWN)
        lines.append(f"| {key[0]} | {', '.join(formats[:MOST_SHOWN])}{more} | {' | '.join(cells)} |")
    return lines


def _form_lines(rows: Sequence[Row]) -> list[str]:
    counts = Counter(form for row in rows for form in row.verdicts if not form.endswith(ALLOWED))
    return [f"| {form} | {count} |" for form, count in counts.items()]


def _container_lines(rows: Sequence[Row]) -> list[str]:
    by_name: dict[str, list[Row]] = defaultdict(list)
    for row in rows:
        by_name[row.pair.muxer.name].append(row)
    lines = []
    for name, those in sorted(by_name.items()):
        encoders = {row.pair.encoding.encoder for row in those}
        keeps = "yes" if any(form.startswith(("turned", "mirrored")) for row in those for form in row.verdicts) else "-"
        cut = Counter(
            what
            for row in those
            for form, verdict in row.verdicts.items()
            if form.startswith("cut")
            if (what := _cut_column(form, verdict))
        )
        counts = [str(cut[what]) if cut[what] else "-" for what in (REFUSED, DEMUXED, NOTED, SILENT)]
        lines.append(f"| {name} | {len(encoders)} | {keeps} | {' | '.join(counts)} |")
    return lines


def _cut_column(form: str, verdict: Verdict) -> str:
    """In which column the verdict on a cut file counts: without the option, and with it only where it is taken."""
    if form.endswith(ALLOWED):
        return DEMUXED if verdict.mark in (EXACT, DEMUXED) else ""
    return verdict.mark if verdict.mark in (REFUSED, NOTED, SILENT) else ""


def _reason_lines(rows: Sequence[Row]) -> list[str]:
    counts: Counter[tuple[str, str]] = Counter()
    example: dict[tuple[str, str], str] = {}
    for row in rows:
        for form, verdict in row.verdicts.items():
            if verdict.mark not in (REFUSED, VARIES):
                continue
            kind = f"cut{ALLOWED}" if form.endswith(ALLOWED) else "cut" if form.startswith("cut") else "whole"
            key = (kind, verdict.reason.partition(":")[0])
            counts[key] += 1
            example.setdefault(key, f"{row.pair.encoding.encoder} in {row.pair.muxer.name}, {form}")
    return [
        f"| {kind}: {reason} | {count} | {example[kind, reason]} |" for (kind, reason), count in counts.most_common()
    ]


def progress(row: Row, done: int, total: int) -> str:
    """A line on a row that is done."""
    encoding = row.pair.encoding
    name = f"{encoding.encoder} {encoding.pix_fmt} in {row.pair.muxer.name}"
    plain = row.verdicts.get(PLAIN)
    return f"[{done}/{total}] {name}: {mark_of(row)}" + (f", plain {plain.mark}" if plain else "")
