from __future__ import annotations

import re
from dataclasses import replace

import numpy as np
import pytest
from loading import make, pixels

from pipelines.dali.graph import augment, define_pipeline
from pipelines.dali.share_finder import Routing, ShareFinder
from pipelines.dali.versions import import_dali
from pipelines.dali_limits import DaliLimits
from pipelines.index.video_index import VideoIndex
from pipelines.specs import AugmentSpec, ClipSpec, ShardSpec
from pipelines.stream import ClipStream

STREAM = ClipStream("index", "root", None, ClipSpec(), AugmentSpec(), ShardSpec(), 4, 0, train=True)
DECODES = DaliLimits(frozenset({"mpeg4", "h264"}), ())


def operators(stream: ClipStream) -> dict[str, str]:
    """Where the output of each operator of the graph lies, by name; building it takes a GPU, defining it does not."""
    pipeline = define_pipeline(stream, threads=1)
    pipeline._build_graph()
    return {re.sub(r"^__|_\d+$", "", one.name): one.outputs[0].device for one in pipeline._ops}


@pytest.mark.parametrize("layout", ["NCTHW", "NTHWC"])
@pytest.mark.parametrize("train", [True, False])
def test_the_graph_of_a_gpu_is_the_same_but_for_where_it_works(layout: str, train: bool) -> None:
    spec = AugmentSpec.model_validate({"layout": layout})
    cpu = replace(STREAM, augment=spec, limits=DECODES, train=train)
    gpu = replace(cpu, device="gpu:0", dtype="float16")
    here, there = operators(cpu), operators(gpu)
    assert set(there) == set(here) - {"Copy"}  # in its place the frames that PyAV decoded go to the GPU
    moved = {"Video", "Slice", "SequenceRearrange", "Reshape", "Transpose", "Flip"}
    moved |= {"Merge", "Resize", "CropMirrorNormalize"}
    assert {name for name, device in there.items() if device == "gpu"} == moved
    assert set(here.values()) == {"cpu"}


def test_what_pyav_scales_is_not_resized_again() -> None:
    assert "Resize" not in operators(STREAM)
    assert "Resize" not in operators(replace(STREAM, device="gpu"))
    assert "Resize" in operators(replace(STREAM, train=False))
    assert "Resize" in operators(replace(STREAM, limits=DECODES))  # what DALI decodes has the size of its box


@pytest.mark.parametrize("name", ["brightness", "contrast", "saturation", "hue"])
def test_colours_change_where_the_clips_lie_and_in_training_only(name: str) -> None:
    jittered = replace(STREAM, augment=AugmentSpec.model_validate({name: 0.1}), limits=DECODES)
    assert operators(jittered)["ColorTwist"] == "cpu"
    for device in ("gpu", "gpu:0"):
        here, there = operators(jittered), operators(replace(jittered, device=device))
        assert there["ColorTwist"] == there["CropMirrorNormalize"] == "gpu"
        assert set(there) == set(here) - {"Copy"}
        order = list(there)
        assert order.index("Resize") < order.index("ColorTwist") < order.index("CropMirrorNormalize")
        plain = operators(replace(jittered, device=device, limits=None))
        assert plain["ColorTwist"] == "gpu"
        assert "Resize" not in plain
    for stream in (STREAM, replace(jittered, train=False), replace(STREAM, limits=DECODES)):
        assert "ColorTwist" not in operators(stream)


def test_half_precision_is_the_same_rounded(index: VideoIndex) -> None:
    with make(index) as full, make(index, dtype="float16") as half:
        for a, b in zip(full, half, strict=True):
            assert np.from_dlpack(b.clips).dtype == np.float16
            assert np.array_equal(pixels(a).astype(np.float16), pixels(b))


def test_augmenting_is_one_function_of_frames(index: VideoIndex) -> None:
    """It can be put behind any other DALI graph: here constant frames."""
    fn, types, Pipeline = import_dali()
    spec = AugmentSpec(size_px=8, layout="NTHWC", mean=(0.0,) * 3, std=(1.0,) * 3)
    pipeline = Pipeline(batch_size=2, num_threads=1, device_id=None)
    with pipeline:
        frames = fn.constant(idata=[102], shape=[3, 16, 24, 3], dtype=types.UINT8, layout="FHWC")
        region = fn.constant(fdata=[0.0, 0.0], shape=[2]), fn.constant(fdata=[16.0, 24.0], shape=[2])
        pipeline.set_outputs(augment(frames, region, 0, spec, "float16"))
    pipeline.build()
    (clips,) = pipeline.run()
    found = np.from_dlpack(clips.as_tensor())
    assert found.shape == (2, 3, 8, 8, 3)
    assert np.array_equal(found, np.full_like(found, 0.4))


def test_clips_that_pyav_scaled_pass_a_graph_that_resizes(index: VideoIndex) -> None:
    """As in a hybrid batch: boxes that have S x S px already come out as they are."""
    spec = AugmentSpec(size_px=32, resize="decoder")
    with make(index, augment=spec) as plain:
        expected = [pixels(batch) for batch in plain]
    stream = make(index, augment=spec)
    stream._stream = replace(stream._stream, limits=DaliLimits())  # DALI could decode, and takes none of these
    stream._finder = ShareFinder(3, 0, routing=Routing("hybrid", 0.5, "as set"))
    with stream:
        for a, b in zip(expected, stream, strict=True):
            assert np.array_equal(a, pixels(b))
