"""What is relied on of each DALI: the arguments of its video decoder, and their defaults."""

from __future__ import annotations

import inspect
from functools import partial

import numpy as np
import pytest

from pipelines.dali.versions import (
    _SAMPLES,
    DALI_ERRORS,
    cpu_video_codecs,
    executor_options,
    import_dali,
    video_decoder,
)
from pipelines.video.remuxer import write_matroska

# The arguments of the decoder in 1.53 and in 2.x, with what each means if it is left out.
SCHEMA = {
    "affine": True,
    "build_index": True,
    "bytes_per_sample_hint": [0],
    "end_frame": None,
    "fill_value": [0],
    "frames": None,
    "pad_mode": "constant",
    "preserve": False,
    "sequence_length": None,
    "start_frame": None,
    "stride": None,
}


def decoder() -> partial[object]:
    found = video_decoder()
    assert isinstance(found, partial)
    return found


def test_the_decoder_has_the_arguments_that_are_known_here() -> None:
    """A DALI with others may decode otherwise: read what is new before this list grows."""
    parameters = inspect.signature(decoder().func).parameters
    assert list(parameters)[:3] == ["encoded", "device", "name"]
    found = {name: one.default for name, one in parameters.items() if name not in ("encoded", "device", "name")}
    assert found == SCHEMA


def test_the_operator_registered_in_dali_says_the_same() -> None:
    from nvidia.dali import backend

    schema = backend.GetSchema(decoder().func._schema_name)  # type: ignore[attr-defined]
    assert sorted(SCHEMA) == sorted(schema.GetArgumentNames())
    given = [name for name in SCHEMA if schema.IsArgumentOptional(name) and schema.HasArgumentDefaultValue(name)]
    said = {name: schema.GetArgumentDefaultValueString(name) for name in given}
    assert said["affine"] == said["build_index"] == "True"
    assert said["pad_mode"] == "'constant'"
    assert "device" not in said
    assert [name for name in SCHEMA if schema.IsTensorArgument(name)] == [
        "end_frame", "frames", "pad_mode", "sequence_length", "start_frame", "stride",
    ]  # fmt: skip


def test_what_is_said_to_the_decoder() -> None:
    """No core is taken for it alone, and no frame is made up."""
    assert decoder().keywords == {"pad_mode": "none", "affine": False}


def test_a_decoder_without_these_arguments_is_not_told_them(monkeypatch: pytest.MonkeyPatch) -> None:
    from nvidia.dali import fn

    def older(encoded: object, /, *, device: object = None, frames: object = None) -> str:
        return f"{device} {frames}"

    for module in (fn, fn.experimental):
        if hasattr(module.decoders, "video"):
            monkeypatch.setattr(module.decoders, "video", older)
    assert video_decoder()(None, frames=[3], device="mixed") == "mixed [3]"


def test_a_frame_past_the_end_is_an_error() -> None:
    if "vp8" not in cpu_video_codecs():
        pytest.skip("this DALI has no decoder for VP8")
    fn, types, Pipeline = import_dali()
    video = np.frombuffer(write_matroska([(0, _SAMPLES["vp8"])], codec="vp8", width=16, height=16), np.uint8)
    pipeline = Pipeline(batch_size=1, num_threads=1, device_id=None, **executor_options(Pipeline))
    with pipeline:
        encoded = fn.external_source(source=lambda: [video], dtype=types.UINT8, ndim=1)
        pipeline.set_outputs(video_decoder()(encoded, frames=[0, 1], device="cpu"))
    pipeline.build()
    with pytest.raises(DALI_ERRORS):
        pipeline.run()
