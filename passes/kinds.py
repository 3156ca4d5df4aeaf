"""What the kinds of fused kernels are, in a line each, for people who read a partition (see :mod:`irconv.passes.fuse`)."""

from __future__ import annotations

KINDS = {
    "elementwise": "elementwise ops with results of one shape",
    "conv_epilogue": "a convolution and the elementwise work on its result",
    "conv_transpose_epilogue": "a transposed convolution and the elementwise work on its result",
    "matmul_epilogue": "a matrix product and the elementwise work on its result",
    "conv_prologue": "a convolution with elementwise work ahead of it, and on its result",
    "conv_transpose_prologue": "a transposed convolution with elementwise work ahead of it, and on its result",
    "matmul_prologue": "a matrix product with elementwise work ahead of it, and on its result",
    "pool_prologue": "a pool and the elementwise work that only it reads",
    "elementwise_reduce": "a reduction and the elementwise work that only it reads",
    "conv_pool": "a convolution, the elementwise work on its result, and the pool that reads that",
    "pool_indices": "a pool and the places of what it finds",
    "mean_variance": "mean and variance of one value",
    "reductions": "several reductions of the same values, and elementwise work on the way",
    "conv_statistics": "a convolution, the elementwise work on its result, and mean and variance of its channels",
    "fused_layers": "a depthwise convolution with the pointwise ones around it, a band of rows at a time",
    "conv_transpose_sums": "an input gradient, the elementwise work on it, and sums of its channels",
    "depthwise_backward": "both gradients of a depthwise convolution, and elementwise work and sums around them",
    "pointwise_gradients": "both gradients of a convolution of single pixels, and elementwise work and sums around them",
    "conv_weight_gradient": "a weight gradient: a product with the columns of its images, which are never stored",
    "row_softmax": "softmax and its kin, row by row",
    "state_updates": "small new parameters, optimiser states and running statistics, all at the end of a step",
}


def what_is(kind: str) -> str:
    """A line about a kind of kernel; kinds without one are named after the only op of their kernels."""
    return KINDS.get(kind, "one op")
