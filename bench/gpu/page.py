"""The page that `bench gpu` ends with: what each result decides, its figures, and what was not measured."""

from __future__ import annotations

import textwrap
from collections import Counter
from collections.abc import Iterator, Sequence
from statistics import median

from bench.gpu import kernels
from bench.gpu.decisions import Decision, batch, decoder, feeding, operations, precision, threads, wait
from bench.gpu.findings import Found, Json, decoder_in_words, why_unusable

_WIDTH = 110
_MOST = 6  # of videos, tests and advice that are named


def page(found: Found) -> str:
    """The page as plain text; it only says what `found` holds."""
    decisions = [decoder(found), threads(found), batch(found), precision(found), wait(found), *operations(found)]
    blocks = [
        _machine(found),
        ["WHAT IT DECIDES for such a card", *_decided(decisions)],
        ["DEFAULTS OF OURS THAT ARE WRONG HERE", *_wrong(decisions)],
        ["DO THE FRAMES AGREE", *_parity(found)],
        ["TESTS", *_tests(found)],
        ["WHAT LIMITS IT", *_limits(found)],
        ["FIGURES: median (lowest to highest round)", *_figures(decisions)],
        ["NOT MEASURED, AND WHY", *_missing(found, decisions)],
    ]
    return "\n\n".join("\n".join(_wrapped(block)) for block in blocks) + "\n"


def _wrapped(lines: Sequence[str]) -> Iterator[str]:
    title, *rest = lines
    yield title
    for line in rest or ["nothing"]:
        yield from textwrap.wrap(
            line, _WIDTH, initial_indent="- ", subsequent_indent="  ", break_long_words=False, break_on_hyphens=False
        )


def _machine(found: Found) -> list[str]:
    title = f"r3d-fast on {found.card['name'] or 'a machine without a usable GPU'}"
    machine = found.results.get("machine")
    if machine is None:
        return [title, f"the machine: {found.why_not('machine')}"]
    versions = ", ".join(f"{name} {version}" for name, version in machine["versions"].items())
    cpus = f"{machine['cpu']}, {machine['cpus']} usable CPUs, {machine['memory_gib']:.0f} GiB"
    lines = [title, f"{machine['gpu'] or 'no GPU'}; {cpus}; {machine['os']}", versions]
    if found.earlier:
        names = ", ".join(found.earlier)
        lines.append(f"OF AN EARLIER RUN, of other videos or with other options: {names}; run it again without --steps")
    if others := machine.get("others on the card"):
        lines.append(f"OTHER PROGRAMS COMPUTE ON THE CARD ({others}): all figures may be too low")
    driver = (found.results.get("doctor") or {}).get("driver") or {}
    if driver.get("version"):
        lines.append(f"driver {driver['version']}; {found.card['engines'] or 'an unknown number of'} NVDEC")
    return lines


def _decided(decisions: Sequence[Decision]) -> list[str]:
    return [f"{one.subject}: {one.choice}" for one in decisions if not one.missing]


def _wrong(decisions: Sequence[Decision]) -> list[str]:
    measured = [one for one in decisions if not one.missing]
    wrong = [one.wrong for one in measured if one.wrong]
    return wrong or [f"none of the {len(measured)} that were measured" if measured else "nothing was measured"]


def _parity(found: Found) -> list[str]:
    parity = found.results.get("parity")
    if parity is None:
        return [found.why_not("parity")]
    decoder_ = decoder_in_words(parity["device"])
    if why := why_unusable(parity):
        return [f"{decoder_} could not be used: {why}"]
    lines = [f"{decoder_}, for {', '.join(parity['codecs']) or 'no codec'}, beside PyAV"]
    for key, what in (("real", "videos of DATA"), ("made", "videos made here, each codec and size")):
        counted = Counter(one["verdict"] for one in parity[key])
        lines.append(f"{what}: {', '.join(f'{count} {word}' for word, count in counted.items()) or 'none'}")
        wrong = [f"{one['video']}: {one['why']}" for one in parity[key] if one["verdict"] == "wrong"]
        lines += [f"WRONG: {line}" for line in wrong[:_MOST]]
        for verdict, words in (("failed", "FAILED, so not compared"), ("refused", "left to PyAV")):
            reasons = Counter(one["why"] for one in parity[key] if one["verdict"] == verdict)
            lines += [f"{words}: {count} because {why}" for why, count in reasons.most_common(_MOST)]
    if parity.get("at") and _was_ended(found.parts.get("parity", {})):
        lines.append(f"it ended at {parity['at']}: {found.why_not('parity')}")
    return [*lines, *_sessions(parity)]


def _was_ended(part: Json) -> bool:
    """Whether a part crashed or ran out of time: only then what it was at may be to blame."""
    return part.get("state") == "over its time" or (part.get("code") or 0) < 0


def _sessions(parity: Json) -> list[str]:
    """Whether NVDEC's sessions are used again, by codec."""
    by_codec: dict[str, dict[bool, list[float]]] = {}
    for one in parity["sessions"]:
        if one["ms a clip"]:
            sizes = by_codec.setdefault(one["video"].split()[0], {})
            sizes.setdefault(one["multiple of 16"], []).append(median(one["ms a clip"]))
    return [
        f"{codec}, ms a clip by size: multiples of 16 {_list(sizes[True])}; others {_list(sizes[False])}"
        for codec, sizes in by_codec.items()
        if len(sizes) == 2
    ]


def _list(values: Sequence[float]) -> str:
    return ", ".join(f"{value:.1f}" for value in values)


def _tests(found: Found) -> list[str]:
    if found.tests is None:
        return [found.why_not("tests")]
    failed, skipped = found.tests["failed"], Counter(one["why"] for one in found.tests["skipped"])
    lines = [f"{found.tests['passed']} passed, {len(failed)} failed, {sum(skipped.values())} skipped"]
    lines += [f"FAILED: {one['test']}: {one['why']}" for one in failed[:_MOST]]
    lines += [f"skipped: {count} because {why}" for why, count in skipped.most_common(_MOST)]
    state = found.parts.get("tests", {}).get("state")
    return lines if state in ("done", "failed") else [*lines, found.why_not("tests")]


def _limits(found: Found) -> list[str]:
    lines = [line] if (line := feeding(found)) else []
    for precision_, ceilings in _ceilings(found.results.get("kernels")).items():
        lines.append(f"{precision_}: {'; '.join(ceilings)}")
    return lines or ["nothing was measured"]


def _ceilings(report: Json | None) -> dict[str, list[str]]:
    """The card's own ceilings, and how near the slowest operations come, by precision."""
    said: dict[str, list[str]] = {}
    if report is None or report["device"] == "cpu":
        return said
    timings = [one for one in report["kernels"] if one["ms"]]
    for one in timings:
        own = said.setdefault(one["precision"], [])
        if one["name"] == kernels.COPY:
            own.append(f"a large copy {one['gb_per_second']:.0f} GB/s")
        elif one["name"] == kernels.MATMUL:
            own.append(f"a large matrix product {one['tflop_per_second']:.1f} TFLOP/s")
    for precision_, own in said.items():
        mine = [one for one in timings if one["precision"] == precision_ and one["layout"]]
        slowest = sorted(mine, key=lambda one: median(one["ms"]), reverse=True)[:3]
        own += [
            f"{one['name']} {one['layout']} {median(one['ms']):.1f} ms, {one['tflop_per_second']:.1f} TFLOP/s, "
            f"{one['gb_per_second']:.0f} GB/s"
            for one in slowest
        ]
    return said


def _figures(decisions: Sequence[Decision]) -> list[str]:
    return [f"{one.subject.partition(' (')[0]}: {line}" for one in decisions for line in one.figures]


def _missing(found: Found, decisions: Sequence[Decision]) -> list[str]:
    """What wasn't measured, those of one reason in one line."""
    reasons: dict[str, list[str]] = {}
    for name, part in found.parts.items():
        if part["state"] != "done":
            reasons.setdefault(found.why_not(name), []).append(name)
    for one in decisions:
        if one.missing:
            reasons.setdefault(one.missing, []).append(one.subject.partition(" (")[0])
    lines = [f"{', '.join(dict.fromkeys(names))}: {why}" for why, names in reasons.items()]
    for name, report in found.results.items():
        left = report.get("extra", {}).get("not measured", {})
        lines += [f"{name}, {what}: {why}" for what, why in left.items()]
    doctor = found.results.get("doctor") or {}
    for check in doctor.get("checks", []):
        if check["state"] != "ok" and check["to_do"]:
            lines.append(
                f"r3d-fast doctor, {check['name']}: {check['found']}; {' && '.join(check['to_do'].splitlines())}"
            )
    kernels_failed = [one for one in found.results.get("kernels", {}).get("kernels", []) if one["problem"]]
    lines += [f"{one['precision']} {one['layout']} {one['name']}: {one['problem']}" for one in kernels_failed[:_MOST]]
    return lines or ["nothing: all of it was measured"]
