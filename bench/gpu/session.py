"""Runs the parts of `bench gpu` one after the other, and makes the page and the archive of what there is then."""

from __future__ import annotations

import fcntl
import json
import signal
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, replace
from importlib.util import find_spec
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn

from pydantic import TypeAdapter, ValidationError

from bench.gpu.archive import note_hidden, write_archive
from bench.gpu.execution import Ending, log_file, run_part
from bench.gpu.findings import gather
from bench.gpu.page import page
from bench.gpu.plan import STEPS, Card, GpuSettings, Part, plan, results_file
from bench.measuring.fresh_python import last_line
from bench.reporting.text import count
from pipelines.datasets.recognition import recognise_dataset
from pipelines.errors import DataError, EnvironmentProblem, ExitCode, R3DFastError, UsageError
from pipelines.machine.nvdec import Decoder
from pipelines.machine.nvidia import Driver
from pipelines.output.files import write_file, write_json
from pipelines.output.folders import make_folder
from pipelines.output.places import write_errors
from r3d_fast.doctor.probes import run_probe
from r3d_fast.errors import Stopped

Say = Callable[[str], None]
_STATUS = "steps.json"
_PATIENCE_SECONDS = 60.0
_ENDINGS = TypeAdapter(dict[str, Ending])
_SIGNALS = (signal.SIGTERM, signal.SIGHUP)
_GOES_ON = "the same command goes on from here"
_OF_THE_CARD = ("CUDA libraries", "Paddle", "DALI", "NVDEC")  # what the doctor checks of it


def find_card() -> Card:
    """The first GPU, asked for in a process of its own, because a driver may crash or hang."""
    found = run_probe("driver", _PATIENCE_SECONDS)
    if "driver" not in found.facts:
        return Card(problem=f"asking the driver failed: {found.error}", to_do="check whether nvidia-smi works")
    driver = Driver.from_json(found.facts["driver"])
    if driver.problem or not driver.gpus:
        return Card(problem=driver.problem or "the driver lists no GPU", to_do=driver.to_do)
    decoder = Decoder.from_json(found.facts["decoder"]) if "decoder" in found.facts else None
    engines = max((caps.engines for caps in decoder.caps), default=0) if decoder else 0
    return Card(driver.gpus[0].name, driver.gpus[0].arch, engines)


def check_settings(settings: GpuSettings, say: Say) -> GpuSettings:
    """The settings with no more videos than there are; `say` is told how many, and what too few of them change.

    Raises DataError where a folder that is read isn't there, or `data` has no videos.
    """
    for folder, what in ((settings.data, "one with videos"), (settings.lists, "one with trainlist01.txt")):
        if folder is not None and not folder.is_dir():
            raise DataError(f"{folder}: no such folder; expected {what}")
    there = len(recognise_dataset(settings.data, val_fraction=0.0).entries)
    usual, settings = settings.batch, replace(settings, videos=min(settings.videos, there))
    say(f"{settings.data}: {count(there, 'video')}, of which {settings.videos} are for measuring speed")
    if settings.batch < usual:
        say(f"too few for batches of {usual}: those measured are of {settings.batch}, and sizes of them not compared")
    return settings


def measure_gpu(settings: GpuSettings, say: Say) -> tuple[str, ExitCode]:
    """(the page, the exit code) after all parts of `settings`; `say` is told what goes on.

    Raises what `check_settings` and `run_parts` raise; EnvironmentProblem where there is no GPU, but not if steps that
    need none were asked for: then these are run, and the exit code says that others were left out.
    """
    settings = check_settings(settings, say)
    card = find_card()
    parts = plan(settings, card)
    if card.problem and (not settings.steps or all(part.needs != "nothing" for part in parts)):
        problem = EnvironmentProblem(f"no GPU: {card.problem}")
        for line in f"to do: {card.to_do}".splitlines() if card.to_do else ():
            problem.add_note(line)
        problem.add_note("what needs no GPU is measured with: --steps machine,doctor,parity")
        raise problem
    say(f"{card.name}, sm_{card.arch}" if not card.problem else f"no GPU: {card.problem}")
    return run_parts(parts, settings, card, say)


def run_parts(parts: Sequence[Part], settings: GpuSettings, card: Card, say: Say) -> tuple[str, ExitCode]:
    """(the page, the exit code) after `parts`; those that are done and were not asked for by name are kept.

    Whatever happens, the page and the archive are made of what there is then. Raises Stopped for SIGTERM and SIGHUP,
    KeyboardInterrupt for Ctrl-C, UsageError where something can't be written or the folder is in use.
    """
    out = settings.out
    if out.is_symlink() and not out.exists():
        raise UsageError(f"{out}: is a link to {out.readlink()}, which isn't there; make it, or choose another --out")
    for folder in (out, out / "logs", out / "results"):
        make_folder(folder, "choose another --out")
    with _alone(out):
        try:
            return _run_all(parts, settings, card, say)
        except KeyboardInterrupt:
            say(f"stopped by Ctrl-C; {_GOES_ON}")
            raise


def _run_all(parts: Sequence[Part], settings: GpuSettings, card: Card, say: Say) -> tuple[str, ExitCode]:
    out = settings.out
    note_hidden(settings)
    endings = _load(out / _STATUS) if _is_of(card, out) else {}
    todo = [part for part in parts if settings.steps or not _is_done(part, endings)]
    for line in _announced(parts, todo):
        say(line)
    text = ""
    try:
        with _signals_raise(), write_errors(out, "free space, and run the same again"):
            for number, part in enumerate(todo, 1):
                _run(part, endings, f"{number}/{len(todo)}", settings, card, say)
    finally:
        with _signals_ignored():
            text = _finish(settings, card, say)
    failed = {part.name: endings[part.name] for part in parts if endings[part.name].state not in ("done", "left out")}
    for name, ending in failed.items():
        log = next(log_file(out, part) for part in parts if part.name == name)
        say(f"failed: {name} ({_why(ending)}): {ending.says}; log: {log}")
    if failed:
        return text, ExitCode.INTERNAL
    if any(endings[part.name].state == "left out" for part in parts):
        return text, ExitCode.ENVIRONMENT
    return text, ExitCode.OK


def _run(part: Part, endings: dict[str, Ending], count: str, settings: GpuSettings, card: Card, say: Say) -> None:
    """Run one part and note its ending."""
    status = settings.out / _STATUS
    reason = _lacks(part, card, settings.out)
    if reason:
        say(f"{count} {part.name}: left out: {reason}")
        endings[part.name] = Ending(part.step, part.shown, "left out", says=reason)
        write_json(status, _as_json(endings))
        return
    most = "" if part.minutes is None else f", at most {part.minutes:g} min"
    say(f"{count} {part.name}{most}: {part.shown}")
    results_file(settings.out, part.name).unlink(missing_ok=True)
    endings[part.name] = Ending(part.step, part.shown, "interrupted", says="the run was ended while this went on")
    write_json(status, _as_json(endings))
    ending = endings[part.name] = run_part(part, settings.out)
    write_json(status, _as_json(endings))
    if ending.state != "done":
        say(f"    {_why(ending)}: {ending.says}")
    if part.name == "doctor" and not card.problem:
        for line in _remedies(settings.out):
            say(f"    {line}")


def _why(ending: Ending) -> str:
    return ending.state if ending.code is None else f"code {ending.code}"


def _is_done(part: Part, endings: dict[str, Ending]) -> bool:
    ending = endings.get(part.name)
    return ending is not None and ending.state == "done" and ending.command == part.shown


def _lacks(part: Part, card: Card, out: Path) -> str:
    """What a part needs and this machine hasn't; empty if it can run. Whether Paddle works the doctor has found out."""
    if part.folder is not None and not (part.folder / "tests").is_dir():
        return "this installation has no tests: run in a checkout, after pip install -e '.[test]' there"
    if part.step == "tests" and find_spec("pytest") is None:
        return "pytest is not installed: pip install -e '.[test]' in the checkout"
    if part.needs == "nothing":
        return ""
    if card.problem:
        return f"no GPU: {card.problem}"
    if part.needs == "gpu":
        return ""
    try:
        doctor = json.loads(results_file(out, "doctor").read_text(encoding="utf-8"))
        paddle = next(check for check in doctor["checks"] if check["name"] == "Paddle")
        usable = doctor["device"] == "gpu" or "computes on the GPU" in paddle["found"]
        return "" if usable else f"Paddle can't use this GPU: {paddle['found']}"
    except (OSError, ValueError, KeyError, TypeError, StopIteration):
        return ""  # the doctor wasn't asked, or didn't answer: the part finds out by itself


def _remedies(out: Path) -> Iterator[str]:
    """What the doctor found wrong with the card's libraries, each with what to do first, in one line; said once."""
    said: set[str] = set()
    try:
        for check in json.loads(results_file(out, "doctor").read_text(encoding="utf-8"))["checks"]:
            if check["name"] in _OF_THE_CARD and check["state"] != "ok" and check["to_do"] not in said:
                said.add(check["to_do"])
                yield ": to do: ".join([f"{check['name']}: {check['found']}", *check["to_do"].splitlines()[:1]])
    except (OSError, ValueError, KeyError, TypeError):
        return  # it didn't answer, which is told already


def _announced(parts: Sequence[Part], todo: Sequence[Part]) -> Iterator[str]:
    """What is said beforehand: what is kept, and how long the rest may take."""
    kept = [part.name for part in parts if part not in todo]
    if kept:
        yield f"done already, and kept: {', '.join(kept)}; to run steps again, name them, as --steps {parts[0].step}"
    limited = [part.minutes for part in todo if part.minutes is not None]
    endless = [part.name for part in todo if part.minutes is None]
    if limited:
        processes = "1 process" if len(limited) == 1 else f"{len(limited)} processes"
        yield f"{processes}, at most {sum(limited):g} min in all; each is ended when its time is over"
    if endless:
        yield f"then, for as long as they take: {', '.join(endless)}; started again with the same --out they go on"


def _finish(settings: GpuSettings, card: Card, say: Say) -> str:
    """The page of what there is, written beside the archive of it; what can't be written is told."""
    try:
        text = page(gather(settings.out, card, plan(replace(settings, steps=STEPS), card)))
    except Exception as error:  # whatever a part wrote, the archive is made
        text = f"no page can be made of what the parts wrote: {type(error).__name__}: {error}\n"
    try:
        write_file(settings.out / "report.txt", text.encode())
        say(f"report:  {settings.out / 'report.txt'}")
        say(f"archive: {write_archive(settings)}")
    except (R3DFastError, OSError) as error:
        say(f"the report and its archive can't be written: {last_line(str(error))}")
    return text


@contextmanager
def _alone(out: Path) -> Iterator[None]:
    """A block in which no other run may use the folder `out`. Raises UsageError where one does."""
    with write_errors(out, "choose another --out"), (out / ".lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise UsageError(
                f"{out}: another bench gpu is at work there; wait for it, or choose another --out"
            ) from error
        yield


def _is_of(card: Card, out: Path) -> bool:
    """Whether what is in the folder `out` was found on the same card; it is noted there that it is from now on.

    What was found where there was no GPU is found again. Raises UsageError for the results of another card.
    """
    file, now = out / "card.json", asdict(card)
    try:
        before = json.loads(file.read_text(encoding="utf-8"))
        known, name = bool(before == now), str(before["name"])
    except (OSError, ValueError, KeyError, TypeError):
        known, name = False, ""
    if name and name != card.name:
        now_here = card.name or f"no GPU ({card.problem})"
        raise UsageError(f"{out}: holds what was found on {name}, here is {now_here}; choose another --out")
    write_json(file, now)
    return known


def _load(path: Path) -> dict[str, Ending]:
    """The endings that were noted in an earlier run; none where there was none, or its notes can't be read."""
    try:
        return _ENDINGS.validate_json(path.read_bytes())
    except (OSError, ValidationError):
        return {}


def _as_json(endings: dict[str, Ending]) -> dict[str, Any]:
    return {name: asdict(ending) for name, ending in endings.items()}


@contextmanager
def _signals_raise() -> Iterator[None]:
    """A block in which SIGTERM, and SIGHUP when a terminal is closed, raise Stopped; Ctrl-C raises by itself."""

    def stop(number: int, frame: FrameType | None) -> NoReturn:
        raise Stopped(f"stopped by {signal.strsignal(number)}; {_GOES_ON}")

    before = {number: signal.signal(number, stop) for number in _SIGNALS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def _signals_ignored() -> Iterator[None]:
    """A block, of seconds, that no signal ends: what was measured is written first."""
    before = {number: signal.signal(number, signal.SIG_IGN) for number in (signal.SIGINT, *_SIGNALS)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
