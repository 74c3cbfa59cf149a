"""A static Paddle model -> an ONNX file, by paddle2onnx, in a process of its own.

The converter ends its process where an operator is beyond it, prints, and changes settings of Paddle's. It is only
asked for bytes: where it writes a file by itself, 2.1 has Polygraphy optimise it, which installs packages with pip.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

OPSET = 13


def convert(program: Path, parameters: Path, out: Path, names: dict[str, tuple[str, ...]]) -> None:
    """Write `out`, inputs and outputs called by `names` (their first axis `batch`), unused tensors left out.

    Raises whatever paddle2onnx and onnx do.
    """
    from r3d_fast.backend.paddle import import_paddle

    import_paddle()
    import onnx
    import paddle2onnx

    # Verbose: where it fails it says little else than which operators there are.
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
    del graph.value_info[:]  # they tell the shapes that tracing saw, under the old names
    onnx.checker.check_model(model)
    onnx.save(model, str(out))


def _main(arguments: list[str]) -> None:
    program, parameters, out, *names = arguments
    os.environ["PIP_NO_INDEX"] = "1"  # no converter is to install anything
    known: dict[str, Any] = {"inputs": (names[0],), "outputs": tuple(names[1:])}
    convert(Path(program), Path(parameters), Path(out), known)


if __name__ == "__main__":
    _main(sys.argv[1:])
