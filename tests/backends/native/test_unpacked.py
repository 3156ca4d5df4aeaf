"""Products whose weight is read where it lies: against NumPy in float64, for any rows, columns, machine and order of tasks."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

import irconv
from irconv import nn
from irconv.backends.codegen.machine import MACHINES, Machine
from irconv.backends.native.base import NativeKernel
from irconv.backends.native.kernels.row_plan import DEEP, FEW
from irconv.backends.native.library import library
from irconv.builder import GraphValue
from irconv.ops.contract import matmul
from irconv.ops.elementwise import add, greater, multiply, relu, sigmoid, tanh
from tests.backends.handwritten import compiler_or_skip
from tests.backends.native.contracting import Case, case, garbage, generate, run, run_tasks
from tests.backends.native.machines import TESTED
from tests.backends.native.test_contract import BEST, HERE, near, numbers

SIZES = [(16, 5), (23, 61), (400, 120), (77, 49), (1031, 97)]
"""(products, columns)"""


def small(machine: str = BEST) -> Machine:
    """With a cache that holds no weight at all."""
    return replace(TESTED[machine], cache_bytes=64)


def operands(rows: int, products: int, columns: int, dtype: str = "f32", along: bool = True) -> list[np.ndarray]:
    """The input, and a weight that lies as one of nn.Linear does, or (not ``along`` the sum) row-major as it is multiplied."""
    weight = numbers(2, (columns, products), dtype).T
    return [numbers(1, (rows, products), dtype), weight if along else np.ascontiguousarray(weight)]


def product(x: np.ndarray, w: np.ndarray) -> np.ndarray:
    return x.astype(np.float64) @ w.astype(np.float64)


def is_unpacked(made: NativeKernel | None) -> bool:
    """Whether the phases that run are those of this way."""
    assert made is not None
    names = [phase.function for phase in made.phases]
    return names in (["matmul_rows"], ["matmul_columns", "matmul_total"])


def made_for(values: list[np.ndarray], machine: Machine | str) -> tuple[Case, NativeKernel, np.ndarray]:
    """The kernel of the plain product."""
    c = case(matmul, *(v.shape for v in values), dtype={np.float32: "f32", np.float64: "f64"}[values[0].dtype.type])
    out = garbage(c.graph[c.result].type)
    made = generate(c, values, out, machine)
    assert made is not None
    return c, made, out


@pytest.mark.parametrize("machine", HERE)
@pytest.mark.parametrize("products, columns", SIZES)
@pytest.mark.parametrize("rows", [1, 3, FEW])
@pytest.mark.parametrize("along", [True, False], ids=["along", "across"])
def test_few_rows(along, rows, products, columns, machine) -> None:
    if not along and columns < 16:
        columns += 16
    values = operands(rows, products, columns, along=along)
    c, made, out = made_for(values, small(machine))
    assert is_unpacked(made) and not made.prepared
    near(run(c, made, values, out), product(*values), products)


@pytest.mark.parametrize("machine", HERE)
@pytest.mark.parametrize("rows, columns", [(1, 3), (3, 50), (FEW + 1, 17), (101, 7)])
def test_deep_sums_of_any_number_of_rows(rows, columns, machine) -> None:
    values = operands(rows, DEEP + 9, columns)
    c, made, out = made_for(values, small(machine))
    assert is_unpacked(made) and not made.prepared
    near(run(c, made, values, out), product(*values), DEEP)


@pytest.mark.parametrize("machine", HERE)
@pytest.mark.parametrize("along", [True, False])
def test_float64(along, machine) -> None:
    values = operands(3, 77, 21, "f64", along)
    c, made, out = made_for(values, small(machine))
    assert is_unpacked(made)
    near(run(c, made, values, out), product(*values), 77, "f64")


@pytest.mark.parametrize("along", [True, False])
def test_rows_over_several_axes_and_at_a_stride(along) -> None:
    x, w = numbers(1, (2, 2, 90))[:, :, :40], operands(1, 40, 33, along=along)[1]
    c, made, out = made_for([x, w], small())
    assert is_unpacked(made)
    near(run(c, made, [x, w], out), product(x, w), 40)


EPILOGUES = {
    "bias": (lambda y, b, r: relu(add(y, b)), lambda y, b, r: np.maximum(y + b, 0)),
    "residual": (lambda y, b, r: multiply(add(y, b), r), lambda y, b, r: (y + b) * r),
    "long": (lambda y, b, r: add(tanh(sigmoid(add(y, b))), r), lambda y, b, r: np.tanh(1 / (1 + np.exp(-y - b))) + r),
}


@pytest.mark.parametrize("machine", HERE)
@pytest.mark.parametrize("name", EPILOGUES)
@pytest.mark.parametrize("products, along", [(70, True), (DEEP, True), (70, False)])
def test_epilogue(products, along, name, machine) -> None:
    build, reference = EPILOGUES[name]
    values = [*operands(3, products, 37, along=along), numbers(3, (37,)), numbers(4, (3, 37))]

    def program(x: GraphValue, w: GraphValue, b: GraphValue, r: GraphValue) -> GraphValue:
        return build(matmul(x, w), b, r)

    shapes = [v.shape for v in values]
    c = case(program if name != "bias" else lambda x, w, b: build(matmul(x, w), b, None), *shapes[: 3 + (name != "bias")])
    values = values[: len(c.inputs)]
    out = garbage(c.graph[c.result].type)
    made = generate(c, values, out, small(machine))
    assert is_unpacked(made)
    wanted = reference(product(*values[:2]), values[2], values[3] if len(values) > 3 else None)
    near(run(c, made, values, out), wanted, 4 * products)


def test_truth_values() -> None:
    values = operands(2, 70, 37)
    values.append(numbers(3, (37,)))
    c = case(lambda x, w, b: greater(matmul(x, w), b), *(v.shape for v in values))
    out = garbage(c.graph[c.result].type)
    made = generate(c, values, out, small())
    assert is_unpacked(made)
    np.testing.assert_array_equal(run(c, made, values, out), product(*values[:2]) > values[2])


# --- what bits and code depend on --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("rows, products, along", [(FEW, 300, True), (200, DEEP + 1, True), (FEW, 300, False)])
def test_bits_do_not_depend_on_how_tasks_are_run(rows, products, along) -> None:
    values = operands(rows, products, 1000 if rows == FEW else 61, along=along)
    c, made, out = made_for(values, small())
    assert all(phase.tasks > 1 for phase in made.phases)
    wanted = run(c, made, values, out).copy()
    for step, backwards in ((1, True), (2, False), (1000, False)):
        found = run_tasks(c, made, values, garbage(c.graph[c.result].type), step, backwards)
        np.testing.assert_array_equal(found, wanted)


@pytest.mark.parametrize("rows, products, along", [(FEW + 3, DEEP + 40, True), (FEW, 300, False)])
def test_a_row_does_not_depend_on_the_others(rows, products, along) -> None:
    values = operands(rows, products, 19, along=along)
    c, made, out = made_for(values, small())
    wanted = run(c, made, values, out)
    for first, last in ((0, 1), (2, FEW), (1, rows)):
        part = [values[0][first:last], values[1]]
        c, made, out = made_for(part, small())
        np.testing.assert_array_equal(run(c, made, part, out), wanted[first:last])


@pytest.mark.parametrize("products, along", [(300, True), (DEEP, True), (300, False), (DEEP, False)])
def test_batches_share_the_source(products, along) -> None:
    sources, ways = set(), []
    for rows in (1, FEW, FEW + 1, 64):
        values = operands(rows, products, 40, along=along)
        c, made, out = made_for(values, small())
        near(run(c, made, values, out), product(*values), products)
        sources.add(made.source)
        ways.append(is_unpacked(made))
    assert len(sources) == 1
    assert ways == ([True] * 4 if along and products >= DEEP else [True, True, False, False])


# --- when it is done ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("along", [True, False])
def test_small_weights_are_packed(along) -> None:
    values = operands(1, 400, 120, along=along)
    assert not is_unpacked(made_for(values, BEST)[1])
    assert is_unpacked(made_for(values, replace(MACHINES[BEST], cache_bytes=400 * 120 * 4 - 1))[1])


def test_other_storage_and_operands_are_left_to_other_ways() -> None:
    x, w = operands(2, 40, 33)
    assert not is_unpacked(made_for([x, numbers(2, (33, 80)).T[::2]], small())[1])
    assert not is_unpacked(made_for([np.asfortranarray(x), w], small())[1])
    batches = [numbers(1, (3, 2, 40)), numbers(2, (3, 33, 40)).swapaxes(1, 2)]
    assert not is_unpacked(made_for(batches, small())[1])
    square = numbers(1, (40, 40))
    c = case(lambda x: matmul(x, x), square.shape)
    made = generate(c, [square], garbage(c.graph[c.result].type), small())
    assert made is None or not is_unpacked(made)


# --- in a network ------------------------------------------------------------------------------------------------------------


@pytest.fixture
def head():
    """A fully connected layer whose weight is larger than any second-level cache of today, and rows for it."""
    compiler_or_skip()
    layer = nn.Linear(DEEP // 2, 1500)
    layer.eval()
    return layer, lambda rows: numbers(rows, (rows, DEEP // 2))


def reference(layer: nn.Linear, x: np.ndarray) -> np.ndarray:
    assert layer.bias is not None
    return product(x, layer.weight.numpy().T) + layer.bias.numpy()


def test_no_packed_weight_is_kept_for_few_rows(head, monkeypatch) -> None:
    monkeypatch.setenv("IRCONV_MACHINE", BEST)
    layer, images = head
    program = irconv.compile(layer, images(1), backend="native")
    near(program(images(1)), reference(layer, images(1)), DEEP)
    assert program.executable.kept_bytes == 0
    before = library().compilations
    near(program(images(FEW + 1)), reference(layer, images(FEW + 1)), DEEP)
    assert program.executable.kept_bytes >= layer.weight.numpy().nbytes
    assert library().compilations == before


def test_a_changed_weight_is_followed(head, monkeypatch) -> None:
    monkeypatch.setenv("IRCONV_MACHINE", BEST)
    layer, images = head
    program = irconv.compile(layer, images(2), backend="native")
    for rows in (2, FEW + 1):
        program(images(rows))
        layer.weight.assign(layer.weight.numpy() * np.float32(-2))
        near(program(images(rows)) / 4, reference(layer, images(rows)) / 4, DEEP)
