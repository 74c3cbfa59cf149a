"""DALI failing at work: real failures where DALI can be made to fail here, its messages where only a GPU could."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from clips import write_stamped_video
from devices import assert_same_clips, load
from numpy.typing import NDArray

from pipelines.dali import graph_runner
from pipelines.dali.graph import ClipPipeline
from pipelines.dali.graph_runner import DaliInput, GraphRunner
from pipelines.dali_limits import DaliLimits
from pipelines.errors import EnvironmentProblem
from pipelines.index.video_index import VideoIndex
from pipelines.loader import Batch, ClipLoader
from pipelines.specs import AugmentSpec, ClipSpec, ShardSpec
from pipelines.stream import ClipStream, Sample

SPEC = AugmentSpec(size_px=16, value_max=255, mean=(0.0,) * 3, std=(1.0,) * 3)
# As DALI 2.4 says it: dali/core/cuda_error.h and the pipeline's own words around it.
NO_MEMORY = (
    "Critical error in pipeline:\nError in GPU operator `nvidia.dali.fn.resize`,\nwhich was used in the pipeline "
    "definition with the following traceback:\n\nencountered:\n\nCan't allocate 4194304 bytes on device 0.\nCurrent "
    "pipeline object is no longer valid."
)


def stream(**options: Any) -> ClipStream:
    limits = DaliLimits(frozenset({"mjpeg"}))
    return ClipStream("index", "root", None, ClipSpec(), SPEC, ShardSpec(), 8, 0, train=True, limits=limits, **options)


def decoded(video: int) -> DaliInput:
    """Two frames of one colour, as PyAV gives them."""
    frames = np.full((2, 16, 16, 3), video, np.uint8)
    return DaliInput(frames, Sample(frames.shape, video, 0, True, (16, 16), (0, 0), False))


def encoded(video: int) -> DaliInput:
    """A clip of which DALI can decode nothing."""
    data = np.frombuffer(b"no video at all" * 20, np.uint8)
    sample = Sample(data.shape, video, 0, True, (16, 16), (0, 0), False, "", (0, 1), (0, 1), (0, 0, 16, 16))
    return DaliInput(data, sample)


def values(clips: Any) -> list[int]:
    """The colour of each clip."""
    pixels: NDArray[np.float32] = np.from_dlpack(clips)
    assert (pixels.max(axis=(1, 2, 3, 4)) == pixels.min(axis=(1, 2, 3, 4))).all()
    return [int(value) for value in pixels[:, 0, 0, 0, 0]]


def nothing_to_redo(row: int, reason: str) -> DaliInput:
    raise AssertionError(f"row {row} was decoded already")


def test_what_dali_fails_on_is_redone_in_its_place() -> None:
    runner = GraphRunner(stream(), threads=1)
    redone: list[tuple[int, str]] = []

    def redo(row: int, reason: str) -> DaliInput:
        redone.append((row, reason))
        return decoded(100 + row)

    assert not runner.busy
    runner.start([decoded(1), encoded(2), decoded(3), encoded(4)])
    assert runner.busy
    assert values(runner.finish(redo)) == [1, 101, 3, 103]
    assert not runner.busy
    assert [row for row, _ in redone] == [1, 3]
    assert all(reason and "\n" not in reason for _, reason in redone)
    assert runner.failed_videos == {2, 4}
    assert runner.decodes  # two videos may be bad


def test_a_decoder_that_decodes_nothing_is_given_up_with_one_warning(caplog: pytest.LogCaptureFixture) -> None:
    runner = GraphRunner(stream(), threads=1)
    with caplog.at_level(logging.WARNING, "pipelines"):
        runner.start([encoded(2), encoded(3), decoded(1), encoded(4)])
        assert values(runner.finish(lambda row, _: decoded(100 + row))) == [100, 101, 1, 103]
    assert not runner.decodes
    (told,) = [record.getMessage() for record in caplog.records]
    assert told.startswith("DALI decodes none of 3 videos (")
    assert told.endswith("): from now on PyAV decodes all")


def test_a_dropped_batch_leaves_a_stage_that_works() -> None:
    runner = GraphRunner(stream(), threads=1)
    for row in (decoded(1), encoded(2)):
        runner.start([row] * 8)
        runner.drop()
        assert not runner.busy
        runner.drop()
    runner.start([decoded(7)])
    assert values(runner.finish(nothing_to_redo)) == [7]


def test_another_number_of_threads_is_another_pipeline_and_the_same_clips(monkeypatch: pytest.MonkeyPatch) -> None:
    built: list[int] = []

    class Counted(ClipPipeline):
        def __init__(self, stream: ClipStream, *, threads: int) -> None:
            built.append(threads)
            super().__init__(stream, threads=threads)

    monkeypatch.setattr("pipelines.dali.graph_runner.ClipPipeline", Counted)
    runner = GraphRunner(stream(), threads=2)
    held = []
    for number, threads in enumerate((2, 1, 1, 2)):
        runner.use_threads(threads)
        runner.start([decoded(number)])
        held.append(runner.finish(nothing_to_redo))
    assert built == [2, 1, 2]
    assert [values(clips) for clips in held] == [[0], [1], [2], [3]]  # those of pipelines that are gone too


class SmallPipeline(ClipPipeline):
    """DALI on a GPU with room for `most` clips; only its message is made up, the rest is the real pipeline."""

    most = 3

    def feed(self, data: Sequence[NDArray[np.uint8]], samples: Sequence[Sample]) -> None:
        self._too_many = len(data) > self.most
        super().feed(data, samples)

    def clips(self) -> Any:
        clips = super().clips()
        if self._too_many:
            raise RuntimeError(NO_MEMORY)
        return clips


@pytest.mark.parametrize(
    ("most", "remedy"),
    [(3, "2 fit: set loader.batch_size=2"), (7, "4 fit: set loader.batch_size=4"), (0, "not even one fits: end other")],
)
def test_a_gpu_out_of_memory_says_what_fits(monkeypatch: pytest.MonkeyPatch, most: int, remedy: str) -> None:
    monkeypatch.setattr("pipelines.dali.graph_runner.ClipPipeline", SmallPipeline)
    monkeypatch.setattr(SmallPipeline, "most", most)
    runner = GraphRunner(stream(), threads=1)
    runner.start([decoded(row) for row in range(8)])
    with pytest.raises(EnvironmentProblem, match=f"^cpu: out of memory for a batch of 8 clips; {remedy}") as caught:
        runner.finish(nothing_to_redo)
    assert caught.value.exit_code == 4
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("error", [RuntimeError(NO_MEMORY), MemoryError("std::bad_alloc")])
def test_no_memory_to_start_with(monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    def full(stream: ClipStream, *, threads: int) -> ClipPipeline:
        raise error

    monkeypatch.setattr("pipelines.dali.graph_runner.ClipPipeline", full)
    remedy = "end other programs that use the GPU"
    with pytest.raises(EnvironmentProblem, match=rf"^cpu: no memory left to start DALI; {remedy}$"):
        GraphRunner(stream(), threads=1)


def test_dali_failing_on_frames_is_an_error() -> None:
    runner = GraphRunner(stream(), threads=1)
    longer = np.zeros((3, 16, 16, 3), np.uint8)
    runner.start([decoded(1), DaliInput(longer, decoded(2).sample._replace(shape=longer.shape))])
    with pytest.raises(EnvironmentProblem, match=r"^DALI failed: .*; to check the installation, run: r3d-fast doctor$"):
        runner.finish(nothing_to_redo)


def test_a_build_of_dali_that_does_not_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    def misfit(stream: ClipStream, *, threads: int) -> ClipPipeline:
        raise RuntimeError("CUDA runtime API error cudaErrorNoKernelImageForDevice (209):\nno kernel image")

    monkeypatch.setattr("pipelines.dali.graph_runner.ClipPipeline", misfit)
    for device, remedy in (("cpu", ""), ("gpu:0", "; to check whether this DALI fits the GPU and its driver, run: ")):
        with pytest.raises(EnvironmentProblem, match=r"^DALI can't be started: ") as caught:
            GraphRunner(stream(device=device), threads=1)
        assert remedy in str(caught.value)


# A GPU whose memory gets full while DALI decodes: PyAV decodes instead, and loading goes on


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory) -> VideoIndex:
    """12 stamped videos; DALI decodes those in MJPEG and VP8 on the CPU."""
    root = tmp_path_factory.mktemp("full") / "videos"
    for codec, suffix in {"mjpeg": "avi", "vp8": "webm", "mpeg4": "avi"}.items():
        (root / codec).mkdir(parents=True)
        for n in range(4):
            write_stamped_video(root / codec / f"v{n}.{suffix}", codec=codec, num_frames=14 + n, size=(112, 112))
    return VideoIndex.build(root, workers=0, val_fraction=0.0)


class FullPipeline(ClipPipeline):
    """DALI on a GPU that gets full in the third batch that it has to decode. Only its message is made up."""

    decoded = 0
    room = 4  # clips of a batch that fit, if they are decoded already
    message = NO_MEMORY

    def feed(self, data: Sequence[NDArray[np.uint8]], samples: Sequence[Sample]) -> None:
        self._encoded, self._clips = any(sample.numbers for sample in samples), len(samples)
        super().feed(data, samples)

    def clips(self) -> Any:
        clips = super().clips()
        if self._encoded:
            FullPipeline.decoded += 1
        if (self._encoded and FullPipeline.decoded > 2) or self._clips > self.room:
            raise RuntimeError(self.message)
        return clips


@pytest.fixture
def full(monkeypatch: pytest.MonkeyPatch) -> type[FullPipeline]:
    monkeypatch.setattr(FullPipeline, "decoded", 0)
    monkeypatch.setattr(graph_runner, "ClipPipeline", FullPipeline)
    return FullPipeline


def epochs(loader: ClipLoader) -> list[Batch]:
    return [batch for number in range(4) for batch in loader.epoch(number)]


def told(caplog: pytest.LogCaptureFixture) -> list[str]:
    """What is said of DALI at work, without what is said beforehand of the videos that it does not take."""
    return [record.getMessage() for record in caplog.records if record.name == graph_runner.__name__]


@pytest.mark.parametrize("decoder", ["dali", "hybrid"])
@pytest.mark.parametrize("workers", [0, 2])
def test_pyav_decodes_what_dali_has_no_memory_for(
    index: VideoIndex, full: type[FullPipeline], decoder: str, workers: int, caplog: pytest.LogCaptureFixture
) -> None:
    with load(index, "pyav", "cpu", workers=workers) as plain:
        expected = epochs(plain)
    options: dict[str, Any] = {"workers": workers} | ({"dali_share": 0.5} if decoder == "hybrid" else {})
    with caplog.at_level(logging.WARNING, "pipelines"), load(index, decoder, "cpu", **options) as loader:
        found = epochs(loader)
        taken = loader.statistics.encoded_clips
        more = list(loader.epoch(4))
        assert loader.statistics.encoded_clips == taken > 0
        assert all(batch.is_real.all() and not batch.bad for batch in more)
    assert_same_clips(found, expected)
    assert told(caplog) == ["cpu: DALI can't decode a batch (out of memory): from now on PyAV decodes all"]


def test_a_batch_that_does_not_fit_even_so_ends_the_run(
    index: VideoIndex, full: type[FullPipeline], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(full, "room", 3)
    remedy = "2 fit: set loader.batch_size=2"
    says = pytest.raises(EnvironmentProblem, match=f"^cpu: out of memory for a batch of 4 clips; {remedy}$")
    with load(index, "dali", "cpu") as loader, says:
        epochs(loader)


def test_clips_that_dali_decodes_alone_and_not_together(
    index: VideoIndex, full: type[FullPipeline], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Whatever the reason is: that is no endless loop, and no error of DALI's reaches the caller."""

    def clips(self: FullPipeline) -> Any:
        clips = ClipPipeline.clips(self)
        if self._encoded and self._clips > 1:
            raise RuntimeError("encountered:\n\nsomething else.")
        return clips

    monkeypatch.setattr(full, "clips", clips)
    with load(index, "pyav", "cpu") as plain:
        expected = epochs(plain)
    with caplog.at_level(logging.WARNING, "pipelines"), load(index, "dali", "cpu") as loader:
        assert_same_clips(epochs(loader), expected)
    assert told(caplog) == ["cpu: DALI can't decode a batch (something else.): from now on PyAV decodes all"]
