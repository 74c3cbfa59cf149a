"""How fast the operations of a 3D ResNet-18 are, forward and backward, beside what the card can do at all.

Run as a process, `FILE DEVICE ARCH all|norm`: it writes JSON after each operation, so that what ends it leaves what was
measured. On a GPU they have the sizes of the reference recipe at batch 64; on a CPU tiny ones, to try this itself.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any

from bench.gpu.plan import PERSISTENT, Card
from pipelines.output.files import write_json

NORM_5D, NORM_4D = "batch norm", "batch norm, 4-D view"
POOL_3D, POOL_2D = "max pool", "max pool, two of 2-D"
STEM_3, STEM_4 = "stem, 3 channels", "stem, 4 channels"
COPY, MATMUL = "copy", "matmul"
STAGES = ("conv of stage 1", "conv of stage 2", "conv of stage 3", "conv of stage 4")
_DTYPES = {"fp32": "float32", "fp16": "float16", "bf16": "bfloat16"}
_ROUNDS = 5
_ROUND_SECONDS = 0.1
_WARM = 3


@dataclass(frozen=True)
class Sizes:
    """Clips a batch, frames and pixels of a clip, channels of the stem, and the sides of the ceilings."""

    batch: int
    frames: int
    side: int
    channels: int
    matmul_side: int
    copied_mib: int


ON_GPU = Sizes(64, 16, 112, 64, 8192, 1024)
ON_CPU = Sizes(2, 4, 16, 4, 256, 8)


@dataclass(frozen=True)
class Kernel:
    """An operation to time. `flops` and `bytes` are the least that one pass can compute and move."""

    flops: float
    bytes: float
    run: Callable[[], Any]


@dataclass(frozen=True)
class Timing:
    """What was measured of a kernel: ms of one pass in each round; `problem` where it can't be run."""

    name: str
    precision: str
    layout: str
    ms: tuple[float, ...]
    tflop_per_second: float
    gb_per_second: float
    problem: str = ""


def measure_kernels(
    device: str, precisions: tuple[str, ...], only: str, keep: Callable[[dict[str, Any]], None]
) -> None:
    """Time the ceilings and the kernels on `device` (cpu or gpu); `keep` is given all figures so far after each.

    `only` "norm" leaves all but batch norm out, and the ceilings. A kernel that this build of Paddle hasn't, or that
    runs out of memory, is noted with the reason. Raises EnvironmentProblem where Paddle can't use the device.
    """
    from r3d_fast.acceleration.gpu import search_algorithms
    from r3d_fast.backend.paddle import choose_device, import_paddle

    paddle = import_paddle()
    choose_device(device)
    search_algorithms()
    sizes = ON_CPU if device == "cpu" else ON_GPU
    found: dict[str, Any] = {
        "device": device,
        "paddle": paddle.__version__,
        "persistent": os.environ.get(PERSISTENT, ""),
        "sizes": asdict(sizes),
        "kernels": [],
    }
    for precision in precisions:
        makers = [] if only == "norm" else list(_ceilings(paddle, precision, sizes))
        for layout in ("NCDHW", "NDHWC"):
            own = _kernels(paddle, precision, layout, sizes)
            makers += [maker for maker in own if only == "all" or maker[0] in (NORM_5D, NORM_4D)]
        for maker in makers:
            timing = _timed(paddle, precision, maker)
            found["kernels"].append(asdict(timing))
            print(f"{precision} {timing.layout} {timing.name}: {in_words(timing)}", flush=True)
            keep(found)


def in_words(timing: Timing) -> str:
    """The figures of a timing in a line."""
    if timing.problem:
        return timing.problem
    return (
        f"{median(timing.ms):.3f} ms ({min(timing.ms):.3f} to {max(timing.ms):.3f}), "
        f"{timing.tflop_per_second:.2f} TFLOP/s, {timing.gb_per_second:.0f} GB/s"
    )


_Maker = tuple[str, str, Callable[[], Kernel]]  # name, layout, what makes the kernel and its tensors


def _timed(paddle: Any, precision: str, maker: _Maker) -> Timing:
    """The timing of the kernel that `maker` gives; its memory is free again afterwards."""
    name, layout, make = maker
    kernel: Kernel | None = None
    try:
        kernel = make()
        ms = _ms_of(paddle, kernel.run)
        seconds = median(ms) / 1000
        return Timing(name, precision, layout, ms, kernel.flops / seconds / 1e12, kernel.bytes / seconds / 1e9)
    except Exception as error:  # what Paddle raises differs from version to version
        problem = f"{type(error).__name__}: {' '.join(str(error).split())[-200:]}"
        return Timing(name, precision, layout, (), 0.0, 0.0, problem)
    finally:
        del kernel
        if paddle.get_device().startswith("gpu"):
            paddle.device.cuda.empty_cache()


def _ms_of(paddle: Any, run: Callable[[], Any]) -> tuple[float, ...]:
    """The mean ms of a pass in each round; rounds are long enough to be timed well."""
    on_gpu = paddle.get_device().startswith("gpu")

    def seconds(passes: int) -> float:
        begin = perf_counter()
        for _ in range(passes):
            run()
        if on_gpu:
            paddle.device.synchronize()
        return perf_counter() - begin

    seconds(_WARM)
    passes = max(1, round(_ROUND_SECONDS * _WARM / seconds(_WARM)))
    return tuple(round(1000 * seconds(passes) / passes, 4) for _ in range(_ROUNDS))


def _ceilings(paddle: Any, precision: str, sizes: Sizes) -> Iterator[_Maker]:
    """A copy and a matrix product so large that nothing in a network is faster."""
    dtype, side = _DTYPES[precision], sizes.matmul_side
    width = _width(precision)

    def copy() -> Kernel:
        source = paddle.zeros([sizes.copied_mib * 2**20 // width], dtype)
        return Kernel(0, 2 * sizes.copied_mib * 2**20, source.clone)

    def matmul() -> Kernel:
        one, other = (paddle.ones([side, side], dtype) for _ in range(2))
        return Kernel(2 * side**3, 3 * width * side**2, lambda: paddle.matmul(one, other))

    yield COPY, "", copy
    yield MATMUL, "", matmul


def _kernels(paddle: Any, precision: str, layout: str, sizes: Sizes) -> Iterator[_Maker]:
    """The operations of the reference's ResNet-18 that take the most time, in one precision and layout."""
    batch = sizes.batch
    stem = (sizes.frames, sizes.side // 2, sizes.side // 2)
    features = (sizes.channels, *stem)
    for name, channels in ((STEM_3, 3), (STEM_4, 4)):
        clip = (channels, sizes.frames, sizes.side, sizes.side)
        yield name, layout, _convolution(paddle, precision, layout, batch, clip, sizes.channels, 7)
    for name in (NORM_5D, NORM_4D):
        yield name, layout, _norm(paddle, precision, layout, batch, features, flat=name == NORM_4D)
    for name in (POOL_3D, POOL_2D):
        yield (
            name,
            layout,
            _pool(paddle, precision, layout, batch, features, twice=name == POOL_2D),
        )
    inner = [max(1, side // 2) for side in stem]
    for number, name in enumerate(STAGES):
        channels = sizes.channels << number
        yield name, layout, _convolution(paddle, precision, layout, batch, (channels, *inner), channels, 3)
        inner = [max(1, side // 2) for side in inner]


def _tensor(paddle: Any, precision: str, layout: str, batch: int, shape: tuple[int, ...], *, learns: bool) -> Any:
    """A random tensor of `batch` times `shape`, (C, T, H, W), in the layout."""
    channels, *space = shape
    sizes = [batch, channels, *space] if layout == "NCDHW" else [batch, *space, channels]
    tensor = paddle.randn(sizes).astype(_DTYPES[precision])
    tensor.stop_gradient = not learns
    return tensor


def _both_ways(paddle: Any, forward: Callable[[], Any], learnt: list[Any]) -> Callable[[], None]:
    """A pass forward and backward; gradients are thrown away."""
    gradient = paddle.ones_like(forward().detach())

    def run() -> None:
        paddle.autograd.backward([forward()], [gradient])
        for tensor in learnt:
            tensor.clear_gradient(False)

    return run


def _convolution(
    paddle: Any, precision: str, layout: str, batch: int, shape: tuple[int, ...], filters: int, size: int
) -> Callable[[], Kernel]:
    """A convolution with `filters` of `size`^3; of the stem (7) no gradient of the clips is wanted, as in training."""
    is_stem = size == 7
    stride = [1, 2, 2] if is_stem else 1

    def make() -> Kernel:
        x = _tensor(paddle, precision, layout, batch, shape, learns=not is_stem)
        weight = paddle.randn([filters, shape[0], size, size, size]).astype(_DTYPES[precision])
        weight.stop_gradient = False

        def forward() -> Any:
            return paddle.nn.functional.conv3d(x, weight, None, stride, size // 2, data_format=layout)

        given = forward()
        macs = given.size * shape[0] * size**3
        moved = (3 if is_stem else 4) * x.size + 3 * given.size
        passes = 2 if is_stem else 3
        learnt = [weight] if is_stem else [x, weight]
        return Kernel(2 * passes * macs, moved * _width(precision), _both_ways(paddle, forward, learnt))

    return make


def _norm(
    paddle: Any, precision: str, layout: str, batch: int, shape: tuple[int, ...], *, flat: bool
) -> Callable[[], Kernel]:
    """Batch norm in training; `flat`: over a view with one axis for frames and rows."""

    def make() -> Kernel:
        channels, frames, height, width = shape
        x = _tensor(paddle, precision, layout, batch, shape, learns=True)
        scale, shift, mean, variance = (paddle.ones([channels]) for _ in range(4))
        scale.stop_gradient = shift.stop_gradient = False
        last = layout == "NDHWC"
        view = [batch, frames * height, width, channels] if last else [batch, channels, frames * height, width]
        form = ("NHWC" if last else "NCHW") if flat else layout

        def forward() -> Any:
            seen = x.reshape(view) if flat else x
            return paddle.nn.functional.batch_norm(seen, mean, variance, scale, shift, True, data_format=form)

        # Forward reads and writes once; backward reads the input and the gradient, and writes one.
        return Kernel(0, 5 * x.size * _width(precision), _both_ways(paddle, forward, [x, scale, shift]))

    return make


def _pool(
    paddle: Any, precision: str, layout: str, batch: int, shape: tuple[int, ...], *, twice: bool
) -> Callable[[], Kernel]:
    """The stem's max pool, 3 wide at stride 2 in time and space; `twice`: over space, then over time."""
    pool = paddle.nn.functional

    def make() -> Kernel:
        channels, frames, height, width = shape
        x = _tensor(paddle, precision, layout, batch, shape, learns=True)
        rows, columns = (height + 1) // 2, (width + 1) // 2

        def in_space_then_time() -> Any:
            """Of frames as pictures, then of a picture with a row a frame and a column a pixel."""
            if layout == "NDHWC":
                small = pool.max_pool2d(
                    x.reshape([batch * frames, height, width, channels]), 3, 2, 1, data_format="NHWC"
                )
                flat = small.reshape([batch, frames, rows * columns, channels])
                return pool.max_pool2d(flat, [3, 1], [2, 1], [1, 0], data_format="NHWC")
            small = pool.max_pool2d(x.reshape([batch, channels * frames, height, width]), 3, 2, 1)
            return pool.max_pool2d(small.reshape([batch, channels, frames, rows * columns]), [3, 1], [2, 1], [1, 0])

        def at_once() -> Any:
            return pool.max_pool3d(x, 3, 2, 1, data_format=layout)

        forward = in_space_then_time if twice else at_once
        given = forward()
        # Forward reads the input and writes the output; backward reads both and the gradient, and writes one.
        return Kernel(0, (3 * x.size + 3 * given.size) * _width(precision), _both_ways(paddle, forward, [x]))

    return make


def _width(precision: str) -> int:
    """Bytes of a number."""
    return 4 if precision == "fp32" else 2


def _main(file: str, device: str, arch: str, only: str) -> None:
    card = Card(arch=int(arch), problem="" if device != "cpu" else "not used")
    halves = tuple(name for name in card.precisions if name != "fp32")
    precisions = halves if only == "norm" else card.precisions
    measure_kernels(device, precisions, only, lambda found: write_json(Path(file), found))


if __name__ == "__main__":
    _main(*sys.argv[1:])
