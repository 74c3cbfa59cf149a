"""`r3d-fast predict --timeline`, `--events`, `--annotate`: what is seen when."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipelines.containers.live_source import LiveSource, live_source
from pipelines.errors import UsageError
from pipelines.output.descriptors import is_stdout
from r3d_fast.commands.predict.lines import say_classes, say_error
from r3d_fast.commands.predict.result_writers import Writer, opened_reports
from r3d_fast.prediction.live.connections import check_reconnect
from r3d_fast.prediction.timelines.events import THRESHOLD, check_threshold, events
from r3d_fast.prediction.timelines.naming import Naming
from r3d_fast.prediction.timelines.windows import Hops, OnFrame
from r3d_fast.prediction.writers.strip import is_picture
from r3d_fast.prediction.writers.video_names import is_folder_name
from r3d_fast.training.stop_signals import stop_signals

if TYPE_CHECKING:
    from r3d_fast.prediction.predictor import Predictor
    from r3d_fast.prediction.timelines.events import Event
    from r3d_fast.prediction.timelines.moments import Moment

_MODES = "--timeline, --events, --strip or --annotate"
_ONLY = f"--hop, --window, --threshold and --smooth are used only with {_MODES}; add one"
_NOT_WITH = f"--views and --features can't be combined with {_MODES}; use one or the other"


@dataclass(frozen=True)
class TimeOptions:
    """What the user asked for: how the video is cut into hops, which classes a hop names, what is written where.

    `events_from` is the threshold of events; None: every hop is told.
    """

    hops: Hops
    naming: Naming
    events_from: float | None
    batch_size: int | None
    reconnect: float
    annotate_to: Path | None
    font: Path | None
    strip: Path | None
    json_file: Path | None
    csv_file: Path | None


def time_options(given: dict[str, Any]) -> TimeOptions | None:
    """The options of the command `given` by their names; None where videos are to be predicted as a whole.

    Raises UsageError for options that do not go together, and for values out of their range.
    """
    check_reconnect(given["reconnect"])
    over_time = any(given[name] not in (None, False) for name in ("timeline", "events", "annotate_to", "strip"))
    settings = {name: given[name] for name in ("hop", "window", "threshold", "smooth")}
    if not over_time:
        if any(value is not None for value in settings.values()):
            raise UsageError(_ONLY)
        if given["font"] is not None:
            raise UsageError("--font is used only with --annotate; give both or none")
        return None
    if given["views"] is not None or given["features"] is not None:
        raise UsageError(_NOT_WITH)
    if given["timeline"] and given["events"]:
        raise UsageError("--timeline tells every hop, --events from when to when a class is seen; give one of them")
    if given["font"] is not None and given["annotate_to"] is None:
        raise UsageError("--font is used only with --annotate; give both or none")
    _check_places(given["strip"], given["annotate_to"])
    hop, threshold = settings["hop"], settings["threshold"]
    events_from = (THRESHOLD if threshold is None else threshold) if given["events"] else None
    if events_from is not None:
        check_threshold(events_from)
    return TimeOptions(
        Hops(Hops().seconds if hop is None else hop, settings["window"]),
        Naming(given["top"], threshold or 0.0, settings["smooth"] or 0.0),
        events_from,
        *(given[name] for name in ("batch_size", "reconnect", "annotate_to", "font", "strip", "json_file", "csv_file")),
    )


def _check_places(strip: Path | None, annotate_to: Path | None) -> None:
    """Raise UsageError where a folder would be made that is called like a file, such as s.jpg."""
    if strip is not None and not is_picture(strip) and not is_folder_name(strip):
        raise UsageError(f"--strip {strip}: expected FILE.png, or a folder: one that is there or a name without ending")
    if annotate_to is not None and not is_folder_name(annotate_to):
        raise UsageError(f"--annotate {annotate_to}: expected a folder: one that is there or a name without ending")


def only_live_source(videos: tuple[str, ...], options: TimeOptions | None) -> LiveSource | None:
    """The live source that the user named; None where these are files.

    Raises UsageError where there is a live source beside other videos, or options that it can't have.
    """
    live = [source for source in map(live_source, videos) if source is not None]
    if not live:
        return None
    name = live[0].name
    if options is None:
        raise UsageError(f"{name}: a live source is predicted over time; add --timeline or --events")
    if len(videos) > 1:
        raise UsageError(f"{name}: a live source is predicted alone; start a command for each")
    if options.annotate_to is not None:
        raise UsageError(f"{name}: --annotate reads a video twice, which a live source does not allow; leave it out")
    return live[0]


def predict_over_time(
    predictor: Predictor, videos: Iterator[str] | LiveSource, options: TimeOptions, say: Callable[[str], None]
) -> tuple[int, int]:
    """Pass to `say`, and write, what is seen when; returns (number of videos, number of those that can't be read)."""
    naming = options.naming
    seen: dict[str, bool] = {}

    def count(moment: Moment) -> None:
        seen[moment.video] = seen.get(moment.video, False) or moment.error is not None

    with ExitStack() as stack:
        # Closed last, as the reader of stdout may have gone by then.
        reports = _reports(options, stack, is_live=isinstance(videos, LiveSource))
        watchers: list[Callable[[Moment], object]] = [count]
        if options.annotate_to is not None:
            from r3d_fast.prediction.writers.annotated_video import Annotator

            annotator = Annotator(options.annotate_to, predictor.classes, options.font, predictor.accept.max_pixels)
            watchers.append(stack.enter_context(annotator).add)
        on_frame: OnFrame | None = None
        if options.strip is not None:
            from r3d_fast.prediction.writers.strip import StripWriter

            strip = stack.enter_context(StripWriter(options.strip, predictor.classes, options.events_from or THRESHOLD))
            watchers.append(strip.add)
            on_frame = strip.add_frame
        moments = _watched(_moments(predictor, videos, options, stack, on_frame), watchers)
        if options.events_from is None:
            for moment in moments:
                _say_moment(say, moment, may_be_none=naming.threshold > 0)
                for add in reports:
                    add(moment)
        else:
            for event in events(
                moments, predictor.classes, threshold=options.events_from, merge_seconds=naming.smooth_seconds
            ):
                _say_event(say, event)
                for add in reports:
                    add(event)
    return len(seen), sum(seen.values())


def _moments(
    predictor: Predictor,
    videos: Iterator[str] | LiveSource,
    options: TimeOptions,
    stack: ExitStack,
    on_frame: OnFrame | None,
) -> Iterator[Moment]:
    """The moments of the files, or of the live source, which ends with the first SIGINT or SIGTERM."""
    hops, naming = options.hops, options.naming
    common: dict[str, Any] = {
        "hop": hops.seconds, "window": hops.window_seconds, "top": naming.top, "threshold": naming.threshold,
        "smooth": naming.smooth_seconds, "on_frame": on_frame,
    }  # fmt: skip
    if not isinstance(videos, LiveSource):
        return predictor.timeline(videos, batch_size=options.batch_size, **common)
    stopping = stack.enter_context(stop_signals(said=""))
    return predictor.live(videos, reconnect=options.reconnect, stopping=stopping, **common)


def _watched(moments: Iterator[Moment], watchers: list[Callable[[Moment], object]]) -> Iterator[Moment]:
    for moment in moments:
        for watch in watchers:
            watch(moment)
        yield moment


def _reports(options: TimeOptions, stack: ExitStack, *, is_live: bool) -> list[Callable[[Any], object]]:
    """What writes each moment, or each event, to the files that the user named."""
    from r3d_fast.prediction.writers import json_csv

    tells_events = options.events_from is not None
    as_json: Writer = json_csv.events_json if tells_events else json_csv.timeline_json
    as_csv: Writer = json_csv.events_csv if tells_events else partial(json_csv.timeline_csv, top=options.naming.top)
    if is_stdout(options.json_file) and (tells_events or is_live):
        as_json = json_csv.json_lines
    others = options.annotate_to is not None or options.strip is not None
    return opened_reports(stack, [(options.json_file, as_json), (options.csv_file, as_csv)], others=others)


def _say_moment(say: Callable[[str], None], moment: Moment, *, may_be_none: bool) -> None:
    when = f" {_time(moment)}" if moment.start or moment.error is None else ""
    if moment.error is not None:
        say_error(moment.video, when, moment.error)
    elif moment.classes or may_be_none:
        say_classes(say, moment.video, when, moment.classes)


def _say_event(say: Callable[[str], None], event: Event) -> None:
    if event.error is not None:
        say_error(event.video, f" {_time(event)}" if event.start else "", event.error)
        return
    likely = f"{100 * event.mean:.1f} % (peak {100 * event.peak:.1f} %)"
    seconds = f"{event.start:g} to {event.end:g} s"
    if event.at is not None:
        end = event.at + timedelta(seconds=event.end - event.start)
        seconds = f"{event.at:%H:%M:%S} to {end:%H:%M:%S}"
    say(f"{event.video}: {seconds} {event.label} {likely}")


def _time(item: Moment | Event) -> str:
    """When a moment or an event begins: the time of day for a live source, else the seconds of the video."""
    return f"{item.start:g} s" if item.at is None else f"{item.at:%H:%M:%S}"
