"""Loading on the CPU as `auto` does on a GPU: trials, numbers of threads, and the check of DALI beside PyAV."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import pytest
from clips import write_stamped_video
from devices import assert_same_clips, load
from waiting import FakeClock

from pipelines.dali import graph_runner
from pipelines.dali.graph import ClipPipeline
from pipelines.dali.routing import choose_decoder
from pipelines.dali.share_finder import ShareFinder
from pipelines.index.video_index import VideoIndex
from pipelines.loader import Batch, ClipLoader
from pipelines.stream import ClipStream, Sample
from pipelines.workers.clip_source import EncodedSource


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory) -> VideoIndex:
    """16 stamped videos in four codecs, one of which DALI does not decode on the CPU."""
    root = tmp_path_factory.mktemp("finder") / "videos"
    for codec, suffix in {"mjpeg": "avi", "vp8": "webm", "vp9": "mkv", "mpeg4": "avi"}.items():
        (root / codec).mkdir(parents=True)
        for n in range(4):
            write_stamped_video(root / codec / f"v{n}.{suffix}", codec=codec, num_frames=14 + n, size=(112, 112))
    return VideoIndex.build(root, workers=0, val_fraction=0.0)


@pytest.fixture
def built(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Has each loader find out as `auto` does on a GPU with one engine; the threads of each pipeline that it builds."""
    threads_of: list[int] = []

    def choose(stream: ClipStream, index: VideoIndex, workers: int, threads: Any) -> tuple[ClipStream, ShareFinder]:
        chosen, _ = choose_decoder(stream, index, workers, threads)
        return chosen, ShareFinder(chosen.batch_size, workers, threads=(2, 1), repeats=chosen.repeats)

    class Counted(ClipPipeline):
        def __init__(self, stream: ClipStream, *, threads: int) -> None:
            threads_of.append(threads)
            super().__init__(stream, threads=threads)

    monkeypatch.setattr("pipelines.loader.choose_decoder", choose)
    monkeypatch.setattr(graph_runner, "ClipPipeline", Counted)
    return threads_of


def slow_down(monkeypatch: pytest.MonkeyPatch, *, pyav: float, dali: Callable[[], float] = lambda: 0.0) -> None:
    """Make PyAV take `pyav` seconds for a clip, and DALI `dali()` for a batch of which it decodes some clips.

    By the loader's clock, which shows no other time: so a busy machine changes nothing.
    """
    clock = FakeClock()
    for name in ("prefetch.perf_counter", "prefetch.process_time", "workers.worker.perf_counter"):
        monkeypatch.setattr(f"pipelines.{name}", clock)
    built: Any = graph_runner.ClipPipeline  # that of the fixture
    load_clips = EncodedSource.load

    class Slowed(built):  # type: ignore[misc]
        def feed(self, data: Any, samples: Any) -> None:
            self._decodes = any(sample.numbers for sample in samples)
            super().feed(data, samples)

        def clips(self) -> Any:
            clock.pass_by(dali() * self._decodes)
            return super().clips()

    def slowed(self: EncodedSource, *arguments: Any, encoded: bool) -> list[Sample]:
        clock.pass_by(pyav * (not encoded))
        return load_clips(self, *arguments, encoded=encoded)

    monkeypatch.setattr(graph_runner, "ClipPipeline", Slowed)
    monkeypatch.setattr(EncodedSource, "load", slowed)


def batches_of(loader: ClipLoader, epochs: int) -> list[Batch]:
    return [batch for number in range(epochs) for batch in loader.epoch(number)]


@pytest.mark.parametrize(("workers", "repeats"), [(2, 1), (0, 1), (2, 2)])
def test_finding_out_changes_no_clip_and_ends_in_one_way(
    index: VideoIndex, built: list[int], workers: int, repeats: int, caplog: pytest.LogCaptureFixture
) -> None:
    options = {"workers": workers, "repeats": repeats}
    with caplog.at_level(logging.INFO, "pipelines"), load(index, "hybrid", "cpu", **options) as loader:
        found = batches_of(loader, 12)
        routing = loader.routing
    assert routing is not None
    assert [one.getMessage() for one in caplog.records if one.levelno == logging.INFO] == [str(routing)]
    assert "by 2 threads" in routing.reason
    assert "by 1 thread, " in routing.reason
    if routing.decoder == "pyav":
        assert routing.threads is None
    else:
        assert routing.threads in (1, 2)
        assert "; then a batch took " in routing.reason
    assert built[:2] == [2, 1]  # and perhaps the first number again, if it was the better one
    assert len(built) <= 3
    with load(index, "pyav", "cpu", **options) as plain:
        assert_same_clips(found, batches_of(plain, 12))


def test_dali_is_given_up_where_only_real_loading_shows_that_it_is_slow(
    index: VideoIndex, built: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As with threads that take the cores of the workers: it is fast alone, and slow while they decode."""
    with load(index, "hybrid", "cpu", workers=0) as loader:

        def while_workers_decode() -> float:
            finder = loader._finder
            assert finder is not None
            return 0.0 if finder._check is None else 0.3

        slow_down(monkeypatch, pyav=0.05, dali=while_workers_decode)
        batches_of(loader, 10)
        routing, encoded = loader.routing, loader.statistics.encoded_clips
        assert routing is not None
        assert (routing.decoder, routing.share) == ("pyav", 0.0)
        assert routing.reason.endswith(" by pyav, so dali was given up")
        batches_of(loader, 1)
        assert loader.statistics.encoded_clips == encoded


def test_dali_stays_where_it_is_faster(index: VideoIndex, built: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    slow_down(monkeypatch, pyav=0.05)
    with load(index, "hybrid", "cpu", workers=0) as loader:
        batches_of(loader, 10)
        assert loader.routing is not None
        assert loader.routing.decoder == "dali"
        assert loader.routing.reason.endswith(" ms by pyav")


def test_epochs_that_are_left_and_a_loader_that_is_closed_meanwhile(
    index: VideoIndex, built: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each epoch that is left after a batch measures a trial; the check needs batches that follow one another."""
    slow_down(monkeypatch, pyav=0.05)
    with load(index, "hybrid", "cpu", workers=0) as loader:
        for number in range(9):
            next(loader.epoch(number))
            assert loader.routing is None
        finder: Any = loader._finder
        assert len(finder._trials) == 9
        assert finder._check.routing.decoder == "dali"
        for number in range(9, 12):
            next(loader.epoch(number))
            assert finder._check.with_dali == []
        loader.close()
        batches = iter(loader.epoch(12))
        for _ in range(3):
            next(batches)
        assert len(finder._check.with_dali) == 2  # without the one that came first
        loader.close()
        for number in range(13, 18):
            list(loader.epoch(number))
        assert loader.routing is not None
        assert loader.routing.decoder == "dali"
