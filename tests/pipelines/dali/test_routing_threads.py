from __future__ import annotations

from dataclasses import replace
from typing import Literal

import pytest

from pipelines.dali import routing
from pipelines.dali.routing import choose_decoder, thread_counts
from pipelines.dali_limits import DaliLimits
from pipelines.index.video_index import VideoIndex
from pipelines.machine.nvdec import DecoderCaps
from pipelines.specs import AugmentSpec, ClipSpec, ShardSpec
from pipelines.stream import ClipStream


def limits(engines: int) -> DaliLimits:
    codecs = {"mpeg4": engines, "h264": engines, "vp8": min(engines, 1)}
    return DaliLimits(
        frozenset(codecs), tuple(DecoderCaps(c, "4:2:0", 8, n, 16, 16, 4096, 4096, 65536) for c, n in codecs.items())
    )


def test_two_threads_and_one_for_each_engine_are_tried() -> None:
    assert thread_counts("auto", limits(1), 8) == (2, 1)  # V100
    assert thread_counts("auto", limits(5), 8) == (10, 5)  # A100
    assert thread_counts("auto", limits(7), 64) == (14, 7)  # H100
    assert thread_counts(3, limits(5), 8) == (3,)


def test_where_nvdec_decodes_nothing_the_cpus_count() -> None:
    for nothing in (None, DaliLimits(frozenset({"mjpeg"})), DaliLimits(frozenset(), ()), limits(0)):
        assert thread_counts("auto", nothing, 8) == (8,)
        assert thread_counts(3, nothing, 8) == (3,)


@pytest.mark.parametrize(
    ("decoder", "train", "device", "threads"),
    [
        ("auto", True, "gpu:0", (10, 5)),
        ("dali", True, "gpu:0", (10, 5)),
        ("dali", False, "gpu:0", (10, 5)),
        ("hybrid", True, "gpu:0", (10, 5)),
        ("pyav", True, "gpu:0", (3,)),  # as many as there are workers: DALI does nothing on the CPU
        ("auto", False, "gpu:0", (3,)),
        ("auto", True, "cpu", (6,)),
    ],
)
def test_each_decoder_and_device(
    index: VideoIndex, monkeypatch: pytest.MonkeyPatch, decoder: Literal["auto", "pyav", "dali", "hybrid"], train: bool,
    device: str, threads: tuple[int, ...],
) -> None:  # fmt: skip
    monkeypatch.setattr(routing, "usable_cpus", lambda: 6)
    monkeypatch.setattr(routing, "limits_of_device", lambda device: limits(5))
    monkeypatch.setattr(routing, "wrong_frames", lambda record, root, device: "")
    stream = ClipStream(
        str(index.path), str(index.root), None, ClipSpec(), AugmentSpec(), ShardSpec(), 4, 0, train=train,
        decoder=decoder, device=device,
    )  # fmt: skip
    assert choose_decoder(stream, index, 3)[1].threads == threads
    assert choose_decoder(replace(stream, repeats=2), index, 3, 9)[1].threads == (9,)
