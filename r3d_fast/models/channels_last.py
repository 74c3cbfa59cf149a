"""Batch norm, pooling and striding of channels-last tensors, [N, T, H, W, C], in forms that a GPU computes as they lie.

For five axes Paddle's GPU kernels copy such tensors into channels-first order and back; for four they need not. So the
layers here compute on views of the same memory with four axes. When they are traced, only the number of clips may be
unknown.
"""

from __future__ import annotations

from typing import Any

from r3d_fast.backend.layers import F, nn

# From so many rows on, Paddle's own kernel normalises a matrix, not cuDNN (CUDNN_PER_ACTIVATION_THRESHOLD of
# paddle/phi/kernels/gpu/batch_norm_kernel.cu and batch_norm_grad_kernel.cu in 2.6, of funcs/norm_utils.h in 3.x).
_FEWEST_ROWS = 10240
_BY_ROWS = ("bfloat16", "bf16")  # names of the type in Paddle's eager tensors and in graphs of 2.6


class ChannelsLastBatchNorm(nn.BatchNorm3D):  # type: ignore[misc]
    """A BatchNorm3D that normalises the view [N, T * H, W, C] of its input. Its results are the same to the bit.

    On a GPU, training takes channels-last input as it lies only if it is float16 and
    FLAGS_cudnn_batchnorm_spatial_persistent is set. The view makes that the plain NHWC case of cuDNN. In all other
    cases Paddle copies input, output and gradients into another order and back; the view has four axes to reorder
    there, not five. Only a matrix is never copied. So bfloat16 input, for which cuDNN has no such mode, is normalised
    as the matrix [N * T * H * W, C] if it is large: then Paddle has a kernel of its own. (Source:
    `fast_nhwc_batch_norm` and `use_native_kernel` in paddle/phi/kernels/gpu/batch_norm_kernel.cu and
    batch_norm_grad_kernel.cu, the same in 2.6 and 3.x; the copies: paddle/phi/kernels/funcs/batch_norm_utils.h.)
    """

    def forward(self, x: Any) -> Any:
        """`x` [N, T, H, W, C], normalised."""
        frames, height, width, channels = x.shape[1:]
        by_rows = (
            self.training
            and str(x.dtype).rpartition(".")[2].lower() in _BY_ROWS
            and x.shape[0] * frames * height * width >= _FEWEST_ROWS
        )
        y = F.batch_norm(
            x.reshape([-1, channels] if by_rows else [-1, frames * height, width, channels]),
            self._mean, self._variance, self.weight, self.bias, training=self.training, momentum=self._momentum,
            epsilon=self._epsilon, data_format="NHWC", use_global_stats=self._use_global_stats,
        )  # fmt: skip
        return y.reshape([-1, frames, height, width, channels])


class ChannelsLastMaxPool(nn.Layer):  # type: ignore[misc]
    """A max pool over 3x3x3 voxels with stride 2 and padding 1, first over space and then over time.

    The maxima are the same, and so are the voxels that get the gradients, in ties too: the first one. Sums of gradients
    are rounded differently. (The copies for five axes: `str_NDHWC` in paddle/phi/kernels/gpudnn/pool_kernel.cu.)
    """

    def forward(self, x: Any) -> Any:
        """`x` [N, T, H, W, C] in half the size, rounded up."""
        return _over_time(F.max_pool2d, _over_space(F.max_pool2d, x, 3, 2, 1), 3, 2, 1)


def average_pool(x: Any, kernel: tuple[int, int, int]) -> Any:
    """The averages of `x` [N, T, H, W, C] over blocks of `kernel` voxels (T, H, W); what fills no block is dropped."""
    if kernel[1:] != (1, 1):
        x = _over_space(F.avg_pool2d, x, kernel[1:], kernel[1:], 0)
    return x if kernel[0] == 1 else _over_time(F.avg_pool2d, x, kernel[0], kernel[0], 0)


def strided(x: Any, stride: int) -> Any:
    """Every `stride`-th voxel of `x` [N, T, H, W, C] in time, height and width, from the first one on."""
    return x[:, ::stride, ::stride, ::stride, :]


def _over_space(pool: Any, x: Any, kernel: Any, stride: Any, padding: int) -> Any:
    """`pool` over height and width of each frame of `x`."""
    frames, height, width, channels = x.shape[1:]
    y = pool(x.reshape([-1, height, width, channels]), kernel, stride, padding, data_format="NHWC")
    return y.reshape([-1, frames, *y.shape[1:]])


def _over_time(pool: Any, x: Any, kernel: int, stride: int, padding: int) -> Any:
    """`pool` over the frames of `x`."""
    frames, height, width, channels = x.shape[1:]
    rows = x.reshape([-1, frames, height * width, channels])
    y = pool(rows, (kernel, 1), (stride, 1), (padding, 0), data_format="NHWC")
    return y.reshape([-1, y.shape[1], height, width, channels])
