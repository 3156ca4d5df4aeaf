"""Contractions and pools that compute what they read, against PyTorch in float64."""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import irconv
import irconv.backends.native.kernels
import irconv.ops
from irconv import nn
from irconv.backends.codegen.machine import MACHINES, Machine
from irconv.backends.native.base import NATIVE, Candidate, NativeKernel, NativeRequest
from irconv.backends.native.runtime import function_address
from irconv.builder import Builder
from irconv.graph import Graph
from irconv.kernel import Kernel
from irconv.ops.contract import matmul
from irconv.ops.conv import conv, conv_transpose
from irconv.ops.elementwise import add, greater, multiply, relu, where
from irconv.ops.pool import argmax_pool, avg_pool, max_pool
from irconv.passes.fuse import fuse
from irconv.strides import value_strides
from irconv.target import Target
from irconv.types import channels_last, tensor_type
from tests.backends.native.contracting import PHASE, arranged, element_strides, garbage
from tests.backends.native.contracting import channels_last as last_order
from tests.backends.native.machines import TESTED
from tests.backends.native.test_contract import HERE, near, numbers

torch = pytest.importorskip("torch", reason="the oracle")
functional = torch.nn.functional
KINDS = frozenset(
    {
        *("conv_epilogue", "conv_transpose_epilogue", "matmul_epilogue", "pool_indices"),
        *("conv_prologue", "conv_transpose_prologue", "matmul_prologue", "pool_prologue"),
    }
)
SHIFT = 0.7
"""What the work makes of 0: padding must not become this."""


@dataclass
class Case:
    """A graph that is one kernel with a prologue, and its arrays."""

    graph: Graph
    kernel: Kernel
    values: dict[int, np.ndarray]

    def request(self, machine: str | Machine, strict: bool = False, threads: int = 2, **more) -> NativeRequest:
        found = TESTED[machine] if isinstance(machine, str) else machine
        strides = {i: s for i, (s, _) in value_strides(self.graph).items()}
        strides |= {i: element_strides(array) for i, array in self.values.items()}
        return NativeRequest(self.graph, self.kernel, strides, found, threads, strict, **more)

    def make(self, machine: str | Machine = HERE[0], strict: bool = False, threads: int = 2) -> NativeKernel:
        made = NATIVE[self.kernel.kind](self.request(machine, strict, threads))
        assert made is not None
        return made

    def every(self, machine: str) -> list[tuple[str, NativeKernel]]:
        """All the ways to compute it."""
        found: list[Candidate] = []

        def choose(request: NativeRequest, candidates: Sequence[Candidate]) -> NativeKernel | None:
            found.extend(candidates)
            return None

        NATIVE[self.kernel.kind](self.request(machine, choose=choose))
        return [(candidate.name, made) for candidate in found if (made := candidate.make()) is not None]

    def run(self, made: NativeKernel, step: int = 1000, backwards: bool = False) -> list[np.ndarray]:
        """The results of one call, ``step`` tasks at a time, the last first if ``backwards``."""
        types = [self.graph[i].type for i in self.kernel.outputs]
        outputs = [garbage(t, None if t.layout is None else last_order(len(t.shape))) for t in types]
        constants = {i: np.asarray(self.graph[i].attributes.value) for i in self.kernel.inputs if i not in self.values}
        arrays = [*outputs, *((self.values | constants)[i] for i in self.kernel.inputs), *(garbage(t) for t in made.scratch)]
        buffers = (ctypes.c_void_p * len(arrays))(*(a.ctypes.data for a in arrays))
        sizes = (ctypes.c_int64 * max(1, len(made.sizes)))(*made.sizes)
        for number, phase in enumerate(made.phases):
            function = PHASE(function_address(made.unit, phase.function))
            starts = range(0, phase.tasks, step)
            for first in reversed(starts) if backwards else starts:
                function(buffers, sizes, first, min(first + step, phase.tasks), number % 2)
        return outputs


def case_of(build: Callable, values: Sequence[np.ndarray], stored_last: bool = True) -> Case:
    """The case of a function of these arrays; what it computes is stored channels last, or row-major."""
    graph = Graph()
    builder = Builder(graph)
    inputs = [builder.input(f"x{i}", tensor_type(str(v.dtype).replace("loat", ""), v.shape)) for i, v in enumerate(values)]
    results = build(*inputs)
    for number, result in enumerate(results if isinstance(results, tuple) else (results,)):
        graph.set_output(f"y{number}", result.id)
    for node in [graph[i] for i in graph.order()]:
        rank = len(node.type.shape)
        if stored_last and not node.is_leaf and rank > 2 and node.op.name != "matmul":
            graph.set_layout(node.id, channels_last(rank))
    kernels = [k for k in fuse(graph, Target("test", KINDS)).kernels if k.kind.endswith("_prologue")]
    (kernel,) = kernels
    assert set(kernel.outputs) == set(graph.outputs.values())
    return Case(graph, kernel, {v.id: array for v, array in zip(inputs, values, strict=True)})


def channel_shape(rank: int, channels: int) -> tuple[int, ...]:
    return (channels, *[1] * (rank - 2))


def images(seed: int, shape: Sequence[int], dtype: str = "f32", last: bool = True) -> np.ndarray:
    array = numbers(seed, tuple(shape), dtype)
    return arranged(array, last_order(len(shape))) if last else array


def activated(x: np.ndarray, scale: np.ndarray) -> np.ndarray:
    return np.maximum(x.astype(np.float64) * scale + SHIFT, 0)


def work(x, scale):
    return relu(add(multiply(x, scale), SHIFT))


def convolution(x, w, scale, bias=None, stored_last=True, **options) -> Case:
    """The kernel of a convolution of what ``work`` makes, with an epilogue where there is a bias."""

    def build(*values):
        y = conv(work(values[0], values[2]), values[1], **options)
        return y if bias is None else relu(add(y, values[3]))

    return case_of(build, [x, w, scale] + ([] if bias is None else [bias]), stored_last)


def conv_wanted(x, w, scale, bias=None, stride=1, padding=0, dilation=1, groups=1):
    function = {3: functional.conv1d, 4: functional.conv2d, 5: functional.conv3d}[x.ndim]
    active = torch.tensor(activated(x, scale))
    y = function(active, torch.tensor(w).double(), None, stride, padding, dilation, groups).numpy()
    return y if bias is None else np.maximum(y + bias, 0)


def close(c: Case, made: NativeKernel, got: np.ndarray, wanted: np.ndarray, most: np.ndarray, depth: int, dtype="f32") -> None:
    """As near as sums of ``depth`` products are, or as Winograd's algorithm promises: 1e-5 of the largest sum of magnitudes."""
    if "winograd" in made.source:
        assert np.abs(got - wanted).max() <= 1e-5 * most.max()
    else:
        near(got, wanted, depth, dtype)


CONVOLUTIONS = [
    # x, w, options, stored channels last
    pytest.param((2, 20, 7, 5), (24, 20, 1, 1), {}, True, id="pixels"),
    pytest.param((2, 17, 9, 7), (37, 17, 1, 1), {"stride": 2}, True, id="every_other_pixel"),
    pytest.param((1, 34, 5, 3), (34, 17, 1, 1), {"groups": 2}, True, id="pixels_in_groups"),
    pytest.param((2, 20, 7, 5), (24, 20, 1, 1), {}, False, id="pixels_row_major"),
    pytest.param((1, 20, 7, 5), (3, 20, 1, 1), {"padding": 1}, False, id="padded_pixels"),
    pytest.param((2, 17, 9, 11), (19, 17, 3, 3), {"padding": 1}, True, id="transformed"),
    pytest.param((1, 64, 14, 13), (32, 64, 3, 3), {"padding": 1}, True, id="transformed_wide"),
    pytest.param((1, 33, 8, 8), (16, 33, 3, 3), {"padding": (0, 0)}, True, id="transformed_without_padding"),
    pytest.param((2, 3, 15, 17), (24, 3, 5, 5), {"padding": 2, "stride": 2}, False, id="image"),
    pytest.param((2, 3, 15, 17), (24, 3, 5, 5), {"padding": 2}, True, id="image_channels_last"),
    pytest.param((2, 12, 9, 9), (8, 12, 3, 3), {"padding": 1, "dilation": 2}, False, id="row_major"),
    pytest.param((1, 8, 9, 9), (8, 4, 3, 3), {"padding": 1, "groups": 2}, False, id="groups_row_major"),
    pytest.param((3, 1, 28, 28), (6, 1, 5, 5), {"padding": 2}, False, id="few_columns"),
    pytest.param((2, 2, 67), (5, 2, 5), {"padding": 2}, False, id="line"),
    pytest.param((1, 3, 5, 4, 6), (7, 3, 3, 3, 3), {"padding": 1}, False, id="volume"),
]

BY_CHANNEL = [
    pytest.param((2, 20, 9, 7), (20, 1, 3, 3), {"padding": 1, "groups": 20}, True, id="by_channel"),
    pytest.param((2, 5, 9, 12), (5, 1, 3, 3), {"padding": 1, "groups": 5}, True, id="by_channel_few"),
    pytest.param((3, 70, 50, 31), (70, 1, 3, 3), {"padding": 1, "groups": 70}, True, id="by_channel_several_tasks"),
    pytest.param((3, 33, 61, 30), (33, 1, 3, 3), {"padding": 1, "stride": 2, "groups": 33}, True, id="by_channel_strided"),
    pytest.param((2, 17, 19, 15), (17, 1, 2, 3), {"stride": 3, "groups": 17}, True, id="by_channel_with_gaps"),
    pytest.param((2, 48, 14, 13), (48, 1, 5, 3), {"padding": (4, 2), "dilation": 2, "groups": 48}, True, id="by_channel_dilated"),
    pytest.param((2, 16, 3, 2), (16, 1, 3, 3), {"padding": 2, "groups": 16}, True, id="by_channel_wide_padding"),
]


@pytest.mark.parametrize("machine", HERE)
@pytest.mark.parametrize(("x_shape", "w_shape", "options", "last"), BY_CHANNEL)
def test_convolutions_by_channel(x_shape, w_shape, options, last, machine):
    x, w = images(0, x_shape, last=last), numbers(1, w_shape)
    scale, bias = numbers(2, channel_shape(4, x_shape[1])), numbers(3, channel_shape(4, w_shape[0]))
    c = convolution(x, w, scale, bias, last, **options)
    made = c.make(machine)
    assert "ring" in made.source
    near(c.run(made)[0], conv_wanted(x, w, scale, bias, **options), int(np.prod(w_shape[1:])), "f32")


def test_rows_that_two_images_of_full_size_make():
    """Of a sum and of a mask, in float64; the second image lies in another order."""
    x, y = images(0, (2, 18, 21, 11), "f64"), images(1, (2, 18, 21, 11), "f64", last=False)
    w = numbers(2, (18, 1, 3, 3), "f64")
    c = case_of(lambda x, y, w: conv(where(greater(y, 0.0), x, y), w, padding=1, groups=18), [x, y, w])
    wanted = functional.conv2d(torch.tensor(np.where(y > 0, x, y)), torch.tensor(w), None, 1, 1, 1, 18).numpy()
    near(c.run(c.make())[0], wanted, 9, "f64")


def test_a_worker_holds_no_more_rows_than_a_window_spans():
    shape = (1, 32, 400, 10)
    c = convolution(images(0, shape), numbers(1, (32, 1, 3, 3)), numbers(2, (32, 1, 1)), padding=1, groups=32)
    made = c.make(threads=3)
    assert [t.size for t in made.scratch] == [3 * 3 * 32, 3 * 3 * 10 * 32]


@pytest.mark.parametrize(("x_shape", "w_shape", "options", "last"), CONVOLUTIONS)
def test_convolutions_in_every_way(x_shape, w_shape, options, last):
    x, w = images(0, x_shape, last=last), numbers(1, w_shape)
    scale, bias = numbers(2, channel_shape(len(x_shape), x_shape[1])), numbers(3, channel_shape(len(x_shape), w_shape[0]))
    c = convolution(x, w, scale, bias, last, **options)
    wanted, most = conv_wanted(x, w, scale, bias, **options), conv_wanted(x, np.abs(w), scale, **options)
    ways = {name.split(",")[0].split(" ")[0]: made for name, made in c.every(HERE[0])}  # the last of each algorithm
    assert ways
    for made in ways.values():
        close(c, made, c.run(made)[0], wanted, most, int(np.prod(w_shape[1:])))


@pytest.mark.parametrize("machine", HERE[1:])
@pytest.mark.parametrize(("x_shape", "w_shape", "options", "last"), CONVOLUTIONS[::3])
def test_convolutions_on_other_machines(x_shape, w_shape, options, last, machine):
    x, w = images(0, x_shape, last=last), numbers(1, w_shape)
    scale = numbers(2, channel_shape(len(x_shape), x_shape[1]))
    c = convolution(x, w, scale, None, last, **options)
    wanted, most = conv_wanted(x, w, scale, **options), conv_wanted(x, np.abs(w), scale, **options)
    made = c.make(machine)
    close(c, made, c.run(made)[0], wanted, most, int(np.prod(w_shape[1:])))


@pytest.mark.parametrize(("x_shape", "w_shape", "options", "last"), CONVOLUTIONS + BY_CHANNEL)
def test_tasks_in_any_order_give_the_same_bits(x_shape, w_shape, options, last):
    x, w = images(0, x_shape, last=last), numbers(1, w_shape)
    c = convolution(x, w, numbers(2, channel_shape(len(x_shape), x_shape[1])), None, last, **options)
    made = c.make()
    (first,) = c.run(made)
    for step, backwards in ((1, False), (1, True), (3, True)):
        assert np.array_equal(first, c.run(made, step, backwards)[0])
    assert np.array_equal(first, c.run(c.make(threads=5))[0])


@pytest.mark.parametrize(("x_shape", "w_shape", "options", "last"), CONVOLUTIONS + BY_CHANNEL)
def test_one_source_for_all_batches(x_shape, w_shape, options, last):
    sources = set()
    for batch in (1, 2, 9):
        shape = (batch, *x_shape[1:])
        scale = numbers(2, channel_shape(len(shape), shape[1]))
        sources.add(convolution(images(0, shape, last=last), numbers(1, w_shape), scale, None, last, **options).make().source)
    assert len(sources) == 1


@settings(max_examples=15, deadline=None)
@given(data=st.data())
def test_convolutions_of_all_kinds(data):
    draw = data.draw
    taps = draw(st.sampled_from([(1, 1), (3, 3), (2, 3)]), "taps")
    stride = draw(st.integers(1, 3), "stride")
    last = draw(st.booleans(), "last")
    overlapping = taps != (1, 1) and last and (taps != (3, 3) or stride != 1)
    channels = draw(st.integers(2, 4) if overlapping else st.integers(2, 40), "channels")
    shape = (draw(st.integers(1, 3), "batch"), channels, *(draw(st.integers(4, 13), "size") for _ in range(2)))
    columns = draw(st.integers(1, 40), "columns")
    padding = draw(st.integers(0, 2), "padding")
    dtype = draw(st.sampled_from(["f32", "f64"] if taps != (3, 3) or not last or channels <= 4 else ["f32"]), "dtype")
    x, w = images(0, shape, dtype, last), numbers(1, (columns, channels, *taps), dtype)
    scale = numbers(2, (channels, 1, 1), dtype)
    c = convolution(x, w, scale, None, last, stride=stride, padding=padding)
    made = c.make(strict=draw(st.booleans(), "strict"))
    wanted, most = (conv_wanted(x, each, scale, None, stride, padding) for each in (w, np.abs(w)))
    close(c, made, c.run(made)[0], wanted, most, channels * taps[0] * taps[1], dtype)


@pytest.mark.parametrize(("taps", "padding", "last"), [(1, 0, True), (3, 1, True), (3, 2, False)])
def test_transposed_convolutions(taps, padding, last):
    x, d = images(0, (2, 17, 9, 7), last=last), images(4, (2, 17, 9, 7), last=last)
    w = numbers(1, (17, 19, taps, taps))

    def build(x, w, d):
        return conv_transpose(where(greater(d, 0.0), x, 0.5), w, padding=padding)

    if taps == 1:
        c = case_of(build, [x, w, d], last)
        active = np.where(d > 0, x, np.float32(0.5))
    else:  # windows overlap: one value of full size
        c = case_of(lambda x, w: conv_transpose(relu(add(x, SHIFT)), w, padding=padding), [x, w], last)
        active = np.maximum(x.astype(np.float64) + SHIFT, 0)
    wanted, most = (
        functional.conv_transpose2d(torch.tensor(active).double(), torch.tensor(each).double(), padding=padding).numpy()
        for each in (w, np.abs(w))
    )
    for strict in (True, False):
        made = c.make(strict=strict)
        close(c, made, c.run(made)[0], wanted, most, 17 * taps * taps)


def small_cache() -> Machine:
    """This machine with a cache in which no weight stays: tasks compute all their pixels first, then take block by block."""
    return replace(MACHINES[HERE[0]], cache_bytes=16 * 1024)


@pytest.mark.parametrize("shape", [(1, 120, 1, 1), (2, 120, 7, 9), (1, 120, 21, 20)])
def test_weights_that_exceed_the_cache(shape):
    x, w, scale = images(0, shape), numbers(1, (200, 120, 1, 1)), numbers(2, (120, 1, 1))
    c = convolution(x, w, scale)
    made = c.make(small_cache())
    assert made.source != c.make().source
    for step, backwards in ((1000, False), (1, True)):
        near(c.run(made, step, backwards)[0], conv_wanted(x, w, scale), 120)


def test_operands_stored_in_any_order():
    x = numbers(0, (2, 18, 6, 5))
    w, flipped = numbers(1, (7, 18, 1, 1)), numbers(2, (2, 18, 6, 5))[::-1, :, ::-1]
    row = np.broadcast_to(numbers(3, (2, 1, 6, 5)), (2, 18, 6, 5))
    c = case_of(lambda x, w, other, row: conv(relu(multiply(add(x, other), SHIFT)), w), [x, w, flipped, row])
    wanted = conv_wanted(((x + flipped) * np.float32(SHIFT) - SHIFT), w, np.ones((18, 1, 1)))
    near(c.run(c.make())[0], wanted, 18)


def test_a_mask_of_truth_values():
    x, w = images(0, (2, 18, 6, 5)), numbers(1, (7, 18, 1, 1))
    mask = numbers(2, (2, 18, 6, 5)) > 0
    c = case_of(lambda x, w, mask: conv(where(mask, x, 0.0), w), [x, w, mask])
    wanted = functional.conv2d(torch.tensor(np.where(mask, x, 0)).double(), torch.tensor(w).double()).numpy()
    near(c.run(c.make())[0], wanted, 18)


# --- products --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(1, 300), (7, 33), (131, 65), (2, 7, 33), (2, 3, 5, 17)])
@pytest.mark.parametrize("shared", [True, False])
def test_products(shape, shared):
    x, scale = numbers(0, shape), numbers(2, shape[-1:])
    w = numbers(1, (shape[-1], 70) if shared else (*shape[:-2], shape[-1], 70))
    c = case_of(lambda x, w, scale: multiply(matmul(work(x, scale), w), 0.5), [x, w, scale], False)
    wanted = activated(x, scale) @ w.astype(np.float64) * 0.5
    for machine in HERE:
        near(c.run(c.make(machine))[0], wanted, shape[-1])


def test_a_product_of_masked_rows():
    x, mask, w = numbers(0, (9, 200)), (numbers(1, (9, 200)) > 0).astype(np.float32) * 2, numbers(2, (200, 33))
    c = case_of(lambda x, mask, w: matmul(multiply(x, mask), w), [x, mask, w], False)
    near(c.run(c.make())[0], (x * mask).astype(np.float64) @ w.astype(np.float64), 200)


def test_one_source_for_any_number_of_rows():
    w, scale = numbers(1, (40, 30)), numbers(2, (40,))
    made = [case_of(lambda x, w, s: matmul(work(x, s), w), [numbers(0, (n, 40)), w, scale], False).make() for n in (1, 2, 200)]
    assert len({each.source for each in made}) == 1


def test_a_call_needs_no_more_memory_than_its_rows():
    w, scale = numbers(1, (2048, 64)), numbers(2, (2048,))
    c = case_of(lambda x, w, s: matmul(work(x, s), w), [numbers(0, (1, 2048)), w, scale], False)
    for machine in (MACHINES[HERE[0]], small_cache()):
        _, staged = c.make(machine, threads=1).scratch
        assert staged.size <= 16 * 2048


class Normalised(nn.Module):
    """Whose scale, computed from two buffers, has the shape of a batch of one."""

    def __init__(self) -> None:
        super().__init__()
        self.norm, self.head = nn.BatchNorm1d(40), nn.Linear(40, 7)

    def forward(self, x: irconv.Tensor) -> irconv.Tensor:
        return self.head(self.norm(x).relu())


def test_a_scale_made_from_buffers_is_one_for_all_batches():
    model, sources = Normalised().eval(), set()
    for batch in (1, 2, 8):
        x = numbers(0, (batch, 40))
        executable = irconv.compile(model, x, backend="native")
        (kernel,) = [kernel for kernel in executable.kernels if kernel.kind == "matmul_prologue"]
        lines = executable.executable.sources[kernel.name].splitlines()
        sources.add("\n".join(line for line in lines if not line.startswith("//")))
        np.testing.assert_allclose(executable(x), irconv.compile(model, x, backend="numpy")(x), rtol=1e-4, atol=1e-5)
    assert len(sources) == 1


# --- pools -----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("machine", "channels", "kernel", "stride", "padding"),
    [(machine, channels, 3, 2, 1) for machine in HERE for channels in (5, 37)]
    + [(HERE[0], 130, 2, 2, 0), (HERE[0], 16, 2, 3, 0), (HERE[0], 37, 5, 4, 2)],
)
def test_pools(channels, kernel, stride, padding, machine):
    x, scale = images(0, (2, channels, 13, 11)), numbers(1, (channels, 1, 1))
    active = np.maximum(x * scale + np.float32(SHIFT), 0)  # in float32: which tap wins must not hang on a rounding
    pooled, places = functional.max_pool2d(torch.tensor(active), kernel, stride, padding, return_indices=True)

    def both(x, scale):
        y = work(x, scale)
        return max_pool(y, kernel, stride, padding), argmax_pool(y, kernel, stride, padding)

    c = case_of(both, [x, scale])
    value, tap = c.run(c.make(machine))
    near(value, pooled.numpy(), 1)
    rows, columns = (np.arange(n) * stride - padding for n in tap.shape[2:])
    row = rows[:, None] + tap.astype(int) // kernel
    column = columns + tap.astype(int) % kernel
    taken = np.take_along_axis(active.reshape(2, channels, -1), (row * 11 + column).reshape(2, channels, -1), 2)
    near(taken.reshape(value.shape), pooled.numpy(), 1)
    assert (tap == (places.numpy() // 11 - rows[:, None]) * kernel + places.numpy() % 11 - columns).mean() > 0.99


@pytest.mark.parametrize("counted", [True, False])
def test_padding_of_an_average_stays_zero(counted):
    x, scale = images(0, (2, 17, 9, 8)), numbers(1, (17, 1, 1))
    c = case_of(lambda x, s: avg_pool(work(x, s), 2, 2, 1, count_include_pad=counted), [x, scale])
    wanted = functional.avg_pool2d(torch.tensor(activated(x, scale)), 2, 2, 1, count_include_pad=counted).numpy()
    for step, backwards in ((1000, False), (1, True)):
        near(c.run(c.make(), step, backwards)[0], wanted, 4)


def test_one_source_for_all_batches_of_a_pool():
    scale = numbers(1, (17, 1, 1))
    made = [case_of(lambda x, s: max_pool(work(x, s), 2), [images(0, (n, 17, 8, 6)), scale]).make() for n in (1, 2, 30)]
    assert len({each.source for each in made}) == 1


# --- whole models ----------------------------------------------------------------------------------------------------------


class Block(nn.Module):
    """Normalisation and activation ahead of the convolutions, as in DenseNet and pre-activation residual networks."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 24, 3, padding=1)
        self.norms = nn.ModuleList([nn.BatchNorm2d(24), nn.BatchNorm2d(48), nn.BatchNorm2d(48)])
        self.convs = nn.ModuleList([nn.Conv2d(24, 24, 3, padding=1, bias=False), nn.Conv2d(48, 24, 1, bias=False)])
        self.head = nn.Linear(48, 5)

    def forward(self, x: irconv.Tensor) -> irconv.Tensor:
        x = self.stem(x)
        x = x + self.convs[0](self.norms[0](x).relu())
        y = self.convs[1](self.norms[1](np.concatenate([x, x * x], 1)).relu())
        y = irconv.nn.functional.max_pool2d(self.norms[2](np.concatenate([x, y], 1)).relu(), 3, 2, 1)
        return self.head(y.mean((2, 3)))


def test_a_model_of_pre_activation_blocks():
    irconv.random.manual_seed(0)
    model, generator = Block(), np.random.default_rng(0)
    model(irconv.tensor(generator.normal(1, 2, size=(4, 3, 12, 10)).astype(np.float32)))  # gives the norms statistics
    model.eval()
    x = generator.normal(size=(2, 3, 12, 10)).astype(np.float32)
    native = irconv.compile(model, x, backend="native")
    kinds = [kernel.kind for kernel in native.kernels]
    assert kinds.count("conv_prologue") == 2 and kinds.count("pool_prologue") == 1
    plain = irconv.compile(model, x, backend="numpy")
    np.testing.assert_allclose(native(x), plain(x), rtol=1e-4, atol=1e-5)
