"""The graphs of a GPU, defined and not built, which takes none: their operators, where they work, what they are told.

Each combination of layout, type, decoding, jitter and scaling is a graph of its own.
"""

from __future__ import annotations

import itertools
import re
from dataclasses import dataclass, replace
from typing import Literal

import pytest

from pipelines.dali.graph import define_pipeline
from pipelines.dali.versions import import_dali
from pipelines.dali_limits import DaliLimits
from pipelines.specs import AugmentSpec, ClipSpec, ShardSpec
from pipelines.stream import ClipStream

JITTER = {"brightness": 0.4, "contrast": 0.4, "saturation": 0.4, "hue": 0.1}
# What is fed for each clip, by name.
FED = {"frames", "mirror"}
FED_ENCODED = {
    "encoded",
    "is_encoded",
    "numbers",
    "order",
    "box_start",
    "box_shape",
    "is_turned",
    "transposes",
    "flips",
}
# What decodes, and turns frames upright where they need it.
DECODING = ["Video", "Slice", "SequenceRearrange", "Reshape", "Transpose", "Flip"]


@dataclass(frozen=True)
class Operator:
    """One operator of a graph: where it works, where its first output lies, and what it was told."""

    name: str
    device: str
    output: str
    arguments: dict[str, str]


def operators(stream: ClipStream) -> list[Operator]:
    pipeline = define_pipeline(stream, threads=3)
    assert (pipeline.device_id, pipeline.num_threads, pipeline.max_batch_size) == (1, 3, 4)
    pipeline._build_graph()
    found = []
    for one in pipeline._ops:
        text = repr(one.spec).split("Arguments:\n")[1]
        arguments = dict(re.findall(r"^ +(\w+): (.*)$", text, re.MULTILINE))
        kind = re.sub(r"^__|_\d+$", "", one.name)
        found.append(Operator(kind, arguments["device"], one.outputs[0].device, arguments))
    return found


@pytest.mark.parametrize(
    ("layout", "dtype", "decodes", "jitters", "resize"),
    list(itertools.product(
        ["NCTHW", "NTHWC"], ["float32", "float16"], [False, True], [False, True], ["decoder", "graph"]
    )),
)  # fmt: skip
def test_each_graph_of_a_gpu(
    layout: str, dtype: Literal["float32", "float16"], decodes: bool, jitters: bool, resize: str
) -> None:
    spec = AugmentSpec.model_validate({"layout": layout, "resize": resize, **(JITTER if jitters else {})})
    limits = DaliLimits(frozenset({"mpeg4"}), ()) if decodes else None
    stream = ClipStream(
        "index", "root", None, ClipSpec(), spec, ShardSpec(), 4, 0, train=True, device="gpu:1", dtype=dtype,
        limits=limits,
    )  # fmt: skip
    for one in (stream, replace(stream, train=False)):
        check(one, operators(one))


def check(stream: ClipStream, found: list[Operator]) -> None:
    decodes, resizes = stream.limits is not None, stream.limits is not None or not stream.scaled
    jitters = stream.train and stream.augment.jitters
    wanted = DECODING * decodes + ["Resize"] * resizes + ["ColorTwist"] * jitters + ["CropMirrorNormalize"]
    work = [one for one in found if one.name in {*DECODING, "Resize", "ColorTwist", "CropMirrorNormalize", "Copy"}]
    assert [one.name for one in work] == wanted
    assert {one.output for one in work} == {"gpu"}
    for one in work:
        assert one.device == ("mixed" if one.name == "Video" else "gpu")
    _, types, _ = import_dali()
    by_name = {one.name: one.arguments for one in work}
    if decodes:
        told = by_name["Video"]
        assert (told["pad_mode"], told["affine"]) == ("none", "False")
        assert "build_index" not in told
        assert by_name["Slice"]["axes"] == "[1, 2, ]"
    if resizes:
        side = stream.augment.size_px
        assert (by_name["Resize"]["size"], by_name["Resize"]["antialias"]) == (
            f"[{side}.000000, {side}.000000, ]",
            "True",
        )
    final = by_name["CropMirrorNormalize"]
    assert final["output_layout"] == ("CFHW" if stream.augment.layout == "NCTHW" else "FHWC")
    assert final["dtype"] == str(int({"float32": types.FLOAT, "float16": types.FLOAT16}[stream.dtype]))
    assert [round(float(value), 3) for value in re.findall(r"[\d.]+", final["mean"])] == [123.675, 116.28, 103.53]
    # What is fed lies on the CPU: the graph itself moves what PyAV decoded to the GPU.
    fed = {one.name: one for one in found if "repeat_last" in one.arguments}
    expected = set(FED)
    expected |= FED_ENCODED if decodes else set()
    expected |= {"region_start", "region_end"} if resizes else set()
    expected |= set(JITTER) if jitters else set()
    assert set(fed) == expected
    assert {(one.device, one.output) for one in fed.values()} == {("cpu", "cpu")}
    in_place = {name for name, one in fed.items() if one.arguments.get("no_copy") == "True"}
    assert in_place == {"frames", "encoded"} & set(fed)
