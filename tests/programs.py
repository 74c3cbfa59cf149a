"""What a traced layer is made of, in the form of 2.6 and in that of 3.x."""

from __future__ import annotations

from typing import Any


def types(graph: Any, sample: Any) -> list[tuple[str, set[str]]]:
    """(name, floating types of inputs and outputs) of each operation in the graph's program for clips like `sample`."""
    concrete, _ = graph.forward.get_concrete_program(sample)
    block = concrete.main_program.global_block()
    if hasattr(block.ops[0], "input_arg_names"):  # the form of 2.6
        found = [
            (op.type, [block.var(name).dtype for name in (*op.input_arg_names, *op.output_arg_names)])
            for op in block.ops
        ]
    else:
        found = [
            (
                op.name().split(".")[1],
                [v.dtype for v in (*op.operands_source(), *op.results()) if v.is_dense_tensor_type()],
            )
            for op in block.ops
            if op.name() not in ("builtin.parameter", "pd_op.data")
        ]
    short = {"FP16": "float16", "BF16": "bfloat16", "FP32": "float32"}
    named = [(name, [str(dtype).rpartition(".")[2] for dtype in dtypes]) for name, dtypes in found]
    return [
        (name, {short.get(d, d.lower()) for d in dtypes if "F" in d or d.lower().startswith(("float", "bfloat"))})
        for name, dtypes in named
    ]
