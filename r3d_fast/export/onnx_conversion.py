"""Converts a static Paddle model to an ONNX file with paddle2onnx. It is run as a program, in its own process.

This is because paddle2onnx ends its process where it can't convert an operator, prints, and changes settings of Paddle.
It returns the model as bytes here: to write a file, paddle2onnx 2.1 calls Polygraphy, which installs packages with pip.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

OPSET = 13


def convert(program: Path, parameters: Path, out: Path, names: dict[str, tuple[str, ...]]) -> None:
    """Write `out`, with `names` for its "inputs" and "outputs", `batch` as their first axis, and no unused tensors.

    Raises any error of paddle2onnx and onnx.
    """
    from r3d_fast.backend.paddle import import_paddle

    import_paddle()
    import onnx
    import paddle2onnx

    # Verbose, because its list of the operators often is all that it prints where it fails.
    written = paddle2onnx.export(
        str(program), str(parameters), None, opset_version=OPSET, auto_upgrade_opset=False, verbose=True
    )
    model = onnx.load_from_string(written)
    graph = model.graph
    renamed = dict(zip([value.name for value in graph.input], names["inputs"], strict=True))
    renamed |= dict(zip([value.name for value in graph.output], names["outputs"], strict=True))
    for value in (*graph.input, *graph.output):
        value.name = renamed[value.name]
        value.type.tensor_type.shape.dim[0].dim_param = "batch"
    for node in graph.node:
        node.input[:] = [renamed.get(name, name) for name in node.input]
        node.output[:] = [renamed.get(name, name) for name in node.output]
    used = {name for node in graph.node for name in node.input}
    kept = [tensor for tensor in graph.initializer if tensor.name in used]
    del graph.initializer[:]
    graph.initializer.extend(kept)
    del graph.value_info[:]  # shapes seen in tracing, under the old names
    onnx.checker.check_model(model)
    onnx.save(model, str(out))


def _main(arguments: list[str]) -> None:
    program, parameters, out, *names = arguments
    os.environ["PIP_NO_INDEX"] = "1"  # keeps the converter from installing packages
    known: dict[str, Any] = {"inputs": (names[0],), "outputs": tuple(names[1:])}
    convert(Path(program), Path(parameters), Path(out), known)


if __name__ == "__main__":
    _main(sys.argv[1:])
