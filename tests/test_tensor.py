"""Tensors: NumPy's behaviour on concrete ones, the same graph-recorded on traced ones, promotion, indexing, errors."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import irconv
from irconv import TensorSpec, nn
from irconv.errors import DTypeError, IrconvError, ShapeError, TraceError
from irconv.interpret import evaluate

X = np.arange(24, dtype=np.float32).reshape(2, 3, 4) - 7.5

NUMPY_FUNCTIONS = {
    "maximum": lambda x: np.maximum(x, 0),
    "minimum": lambda x: np.minimum(1.5, x),
    "pad": lambda x: np.pad(x, ((0, 0), (1, 2), (0, 1))),
    "pad reflect": lambda x: np.pad(x, 1, mode="reflect") if x.shape[0] > 1 else x,
    "ellipsis step": lambda x: x[..., ::2],
    "negative step": lambda x: x[:, ::-1, 3:0:-2],
    "newaxis": lambda x: x[:, None, 1],
    "integer array": lambda x: x[:, [2, 0]],
    "two integer arrays": lambda x: x[[0, 1], [2, -1]],
    "matmul": lambda x: x @ np.swapaxes(x, 1, 2),
    "mean keepdims": lambda x: x - np.mean(x, axis=(0, 2), keepdims=True),
    "std": lambda x: np.std(x, axis=1),
    "var ddof": lambda x: np.var(x, axis=0, ddof=1),
    "sum method": lambda x: x.sum(axis=-1),
    "exp": lambda x: np.exp(x / 10),
    "clip": lambda x: np.clip(x, -2, 3),
    "where": lambda x: np.where(x > 0, x, 0.1 * x),
    "concatenate": lambda x: np.concatenate([x, x * 2], axis=1),
    "stack": lambda x: np.stack([x, -x], axis=-1),
    "split": lambda x: np.split(x, 2, axis=2)[1],
    "split at": lambda x: np.split(x, [1], axis=1)[1],
    "flip": lambda x: np.flip(x, 1),
    "moveaxis": lambda x: np.moveaxis(x, 0, -1),
    "transpose": lambda x: np.transpose(x, (2, 0, 1)),
    "T": lambda x: x.T,
    "expand": lambda x: np.expand_dims(x, 1),
    "squeeze": lambda x: np.squeeze(x[:1], 0),
    "take": lambda x: np.take(x, [3, 1], axis=2),
    "take of all": lambda x: np.take(x, [[3, 23], [-1, 0]]),
    "take method": lambda x: x.take([3, 23]),
    "moveaxis of two": lambda x: np.moveaxis(x, (0, 1), (-1, 0)),
    "roll": lambda x: np.roll(x, 5, axis=2),
    "roll of two": lambda x: np.roll(x, (1, -1), axis=(0, 1)),
    "roll of all": lambda x: np.roll(x, -7),
    "tile": lambda x: np.tile(x, (2, 1, 1, 3)),
    "tile last": lambda x: np.tile(x, 2),
    "repeat": lambda x: np.repeat(x, 3, axis=-1),
    "repeat of all": lambda x: np.repeat(x, 2),
    "vstack": lambda x: np.vstack([x[0, 0], x[1]]),
    "hstack": lambda x: np.hstack([x, x + 1]),
    "outer": lambda x: np.outer(x[0], x[1, 0]),
    "copy": lambda x: np.copy(x),
    "any": lambda x: np.any(x > 5, axis=2),
    "all": lambda x: np.all(x),
    "isfinite": lambda x: np.isfinite(np.where(x > 0, x, np.inf)),
    "clip by keyword": lambda x: np.clip(x, min=-2),
    "argmax": lambda x: np.argmax(x, axis=1),
    "absolute": lambda x: abs(x),
    "power": lambda x: abs(x) ** 1.5,
    "square": lambda x: x**2,
    "rpow": lambda x: 2 ** (x / 8),
    "mod": lambda x: x % 3,
    "floordiv": lambda x: x // 2,
    "rsub": lambda x: 1 - x,
    "rdiv": lambda x: 1 / x,
    "sqrt": lambda x: np.sqrt(abs(x)),
    "tanh": lambda x: np.tanh(x),
    "rint": lambda x: np.rint(x),
    "reduce": lambda x: np.add.reduce(x, axis=1),
    "broadcast_to": lambda x: np.broadcast_to(x[:, :1], x.shape) + 0,
    "zeros like": lambda x: np.zeros_like(x) + np.ones((3, 4), dtype=np.float32, like=x),
    "logic": lambda x: (x > 0) & ~(x > 3) | (x < -5),
    "compare": lambda x: (x != 0.5) == (x >= 1),
}


@pytest.mark.parametrize("name", NUMPY_FUNCTIONS)
def test_numpy_functions_agree_concrete_and_traced(name: str) -> None:
    function = NUMPY_FUNCTIONS[name]
    expected = function(X)
    concrete = function(irconv.tensor(X))
    graph = irconv.trace(function, TensorSpec(X.shape))
    values = evaluate(graph, {graph.inputs[0]: X})
    for result in (concrete.numpy(), values[graph.outputs[""]]):
        assert result.shape == expected.shape
        np.testing.assert_allclose(result, expected, rtol=1e-5, atol=1e-6)


index_entries = st.one_of(
    st.slices(4), st.integers(-2, 1), st.none(), st.just(Ellipsis), st.lists(st.integers(-2, 1), min_size=1, max_size=3)
)


@settings(max_examples=150, deadline=None)
@given(st.lists(index_entries, min_size=1, max_size=4))
def test_indexing_is_numpys_or_an_error(entries: list) -> None:
    index = tuple(entries)
    x = np.arange(24.0).reshape(2, 3, 4)
    try:
        expected = x[index]
    except IndexError:
        with pytest.raises(IrconvError):
            irconv.tensor(x)[index]
        return
    try:
        result = irconv.tensor(x)[index]
    except TraceError:
        assert sum(isinstance(e, list) for e in entries) >= 1  # only integer arrays in odd places are refused
        return
    if sum(isinstance(e, list) for e in entries) <= 1 and not any(isinstance(e, int) for e in entries):
        np.testing.assert_array_equal(result.numpy(), expected)
    else:
        assert result.size == expected.size


@settings(max_examples=60, deadline=None)
@given(st.slices(5), st.one_of(st.slices(4), st.integers(-4, 3)))
def test_assignment_is_numpys(rows: slice, columns: slice | int) -> None:
    expected = np.zeros((5, 4), np.float32)
    expected[rows, columns] = 2.5
    y = irconv.zeros((5, 4))
    y[rows, columns] = 2.5
    np.testing.assert_array_equal(y.numpy(), expected)


def test_promotion() -> None:
    f32, f64 = irconv.tensor([1.0]), irconv.tensor([1.0], "float64")
    i32, i64, u8 = (irconv.tensor([1], t) for t in ("int32", "int64", "uint8"))
    boolean = irconv.tensor([True])
    assert (f32 + 1.5).dtype == np.float32 and (f32 + 1).dtype == np.float32
    assert (f32 + f64).dtype == np.float64
    assert (i64 + f32).dtype == np.float32  # NumPy would say float64: an integer with a float gives that float
    assert (i32 + i64).dtype == np.int64 and (u8 + i32).dtype == np.int32
    assert (u8 / 255.0).dtype == np.float32 and (i64 / 2).dtype == np.float32
    assert (u8 + 1).dtype == np.uint8 and (boolean + 1).dtype == np.int64
    assert (f32 + np.float64(2)).dtype == np.float64  # a NumPy scalar has a width
    with pytest.raises(DTypeError, match="300 does not fit in u8"):
        u8 + 300


def test_truth_value_of_a_traced_tensor_names_the_line() -> None:
    def f(x):
        if x.sum() > 0:
            return x
        return -x

    with pytest.raises(TraceError, match="truth value") as caught:
        irconv.trace(f, TensorSpec((2,)))
    assert "test_tensor.py" in str(caught.value) and "irconv.where" in str(caught.value)


@pytest.mark.parametrize("index", [(0, 0), 0])
def test_traced_value_into_numpy_array_names_the_line(index: tuple[int, int] | int) -> None:
    def f(x):
        y = np.zeros((2, 2))
        y[index] = x[index]
        return y

    with pytest.raises(TraceError, match="traced tensor") as caught:
        irconv.trace(f, TensorSpec((2, 2)))
    assert "test_tensor.py" in str(caught.value) and "irconv.zeros" in str(caught.value)


def test_assignment_in_a_loop_traces() -> None:
    def running_sum(x):
        y = np.zeros(4, dtype=np.float32, like=x)
        total = 0
        for i in range(4):
            total = total + x[i]
            y[i] = total
        return y

    graph = irconv.trace(running_sum, TensorSpec((4,)))
    x = np.array([1, 2, 3, 4], np.float32)
    np.testing.assert_array_equal(evaluate(graph, {graph.inputs[0]: x})[graph.outputs[""]], [1, 3, 6, 10])


def test_stale_views_are_errors() -> None:
    y = irconv.zeros((2, 2))
    view = y[0]
    y[0, 0] = 5.0
    with pytest.raises(TraceError, match="assigned into after"):
        view + 1
    assert y[0].tolist() == [5.0, 0.0]


def _row_in_place(x):
    row = x[1]
    row += 10
    row[0] = 7
    return x


def _in_place_through_views(x):
    x[0][1] = 5
    x[:, ::-2] *= 3
    turned = x.T[1:, ::2]
    turned -= 1
    flat = x.reshape(-1).reshape(2, 2, 3)
    flat[1] += 2
    x[0, 0] += 100
    x[0, 0] += 100
    return x


def _other_names_see_it(x):
    same = x
    same += 1
    same //= 2
    return x


def _first_row_as_total(x):
    total = x[0]
    for i in range(1, x.shape[0]):
        total += x[i]
    return x


IN_PLACE = [_row_in_place, _in_place_through_views, _other_names_see_it, _first_row_as_total]


@pytest.mark.parametrize("function", IN_PLACE)
def test_in_place_operators_change_what_numpy_changes(function) -> None:
    x = np.arange(12, dtype=np.float32).reshape(3, 4)
    graph = irconv.trace(function, TensorSpec(x.shape))
    traced = evaluate(graph, {graph.inputs[0]: x})[graph.outputs[""]]
    concrete = function(irconv.tensor(x))
    expected = function(x.copy())
    np.testing.assert_array_equal(traced, expected)
    np.testing.assert_array_equal(concrete.numpy(), expected)


def test_in_place_where_numpy_may_have_copied_is_an_error() -> None:
    x = irconv.zeros((3, 4))
    for view in (x.T.reshape(-1), x[:, :2].reshape(2, 3)):
        with pytest.raises(TraceError, match="order in memory"):
            view += 1
        assert (view + 1).shape == view.shape


def test_one_element_added_to_in_place_is_written_once() -> None:
    def f(x):
        x[0] += 1
        return x

    ops = [node.op.name for node in irconv.trace(f, TensorSpec((3,)))]
    assert ops.count("slice_update") == 1


def test_gradients_flow_through_in_place_operators() -> None:
    x = irconv.tensor([1.0, 2.0, 3.0], requires_grad=True)
    y = x * 1
    part = y[1:]
    part *= x[:2]
    y.sum().backward()
    assert x.grad.tolist() == [3.0, 4.0, 2.0]
    assert irconv.grad(_squared_in_place)(irconv.tensor([1.0, 2.0])).tolist() == [2.0, 4.0]


def _squared_in_place(x):
    x *= x
    return x.sum()


def test_what_collects_a_gradient_changes_in_place_only_without_gradients() -> None:
    leaf, parameter = irconv.tensor([1.0, 2.0], requires_grad=True), nn.Parameter([1.0, 2.0])
    for weight in (leaf, parameter):
        (weight * weight).sum().backward()
        with pytest.raises(TraceError, match="no_grad"):
            weight -= 1
        with pytest.raises(TraceError, match="no_grad"):
            weight[0] = 1
        with pytest.raises(TraceError, match="no_grad"):
            weight.reshape(2, 1)[0] = 1
        same = weight
        with irconv.no_grad():
            weight -= 0.5 * weight.grad
            weight[1] = 9
        assert same is weight and weight.tolist() == [0.0, 9.0] and weight.requires_grad
        weight.grad = None
        weight.sum().backward()
        assert weight.grad.tolist() == [1.0, 1.0]


def test_in_place_keeps_shape_and_type() -> None:
    x = irconv.tensor([1, 2])
    with pytest.raises(DTypeError, match="in place"):
        x += 0.5
    with pytest.raises(ShapeError, match="in place"):
        x += np.ones((2, 2), np.int64)
    half = irconv.tensor([1.0], "f16")
    half += np.ones(1, np.float64)
    assert half.dtype == np.float16 and half.tolist() == [2.0]


def test_assignment_does_not_change_what_was_computed_before() -> None:
    x = irconv.tensor([1.0, 2.0], requires_grad=True)
    y = x * 1
    z = (y * y).sum()
    y[0] = 100.0
    z.backward()
    assert x.grad.tolist() == [2.0, 4.0]


def test_iterating_a_traced_tensor_is_fine() -> None:
    graph = irconv.trace(lambda x: sum(row for row in x), TensorSpec((3, 2)))
    x = np.arange(6, dtype=np.float32).reshape(3, 2)
    np.testing.assert_array_equal(evaluate(graph, {graph.inputs[0]: x})[graph.outputs[""]], x.sum(0))


def test_mask_assignment_becomes_where() -> None:
    x = irconv.tensor([[1.0, -2.0], [-3.0, 4.0]])
    y = x * 1
    y[x < 0] = 0.0
    assert y.tolist() == [[1.0, 0.0], [0.0, 4.0]]


@pytest.mark.parametrize(
    ("function", "error", "words"),
    [
        (lambda x: x[5], ShapeError, "out of bounds"),
        (lambda x: x[0, 0, 0], ShapeError, "indices for a tensor"),
        (lambda x: x[x > 0], TraceError, "boolean mask"),
        (lambda x: x + np.ones(7), ShapeError, "do not broadcast"),
        (lambda x: np.linalg.norm(x), TraceError, "numpy.norm has no counterpart"),
        (lambda x: np.add(x, 1, out=np.zeros((2, 2))), TraceError, "out="),
        (lambda x: float(x), TraceError, "needs the data"),
        (lambda x: x.reshape(3, -1), ShapeError, "reshape|fit"),
        (lambda x: irconv.tensor([1 + 2j]), DTypeError, "complex"),
        (lambda x: np.arctan2(x, x), TraceError, "arctan2 has no counterpart"),
    ],
)
def test_errors_name_the_line(function, error, words: str) -> None:
    with pytest.raises(error, match=words) as caught:
        irconv.trace(function, TensorSpec((2, 2)))
    assert "test_tensor.py" in str(caught.value)


def test_unrolled_loops_warn_with_the_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("irconv.tracing.UNROLLED", 20)

    def f(x):
        for _ in range(30):
            x = x + 1
        return x

    with pytest.warns(UserWarning, match=r"test_tensor\.py:\d+: this line has recorded more than 20 nodes"):
        irconv.trace(f, TensorSpec((2,)))


def test_a_tensor_of_another_trace_is_refused() -> None:
    kept = []
    irconv.trace(lambda x: kept.append(x) or x + 1, TensorSpec((2,)))
    with pytest.raises(TraceError, match="another trace"):
        irconv.trace(lambda x: x + kept[0], TensorSpec((2,)))
    with pytest.raises(TraceError):
        kept[0].numpy()


def test_making_tensors() -> None:
    assert irconv.tensor([1, 2]).dtype == np.int64 and irconv.tensor([1.0]).dtype == np.float32
    assert irconv.tensor(np.array([1.0])).dtype == np.float64
    assert irconv.tensor(np.arange(3)[::-1]).tolist() == [2, 1, 0]
    assert irconv.arange(3).tolist() == [0, 1, 2] and irconv.ones((2,)).tolist() == [1.0, 1.0]
    source = np.ones(2, np.float32)
    copy = irconv.tensor(source)
    source[0] = 9
    assert copy.tolist() == [1.0, 1.0]
    with pytest.raises(ValueError, match="read-only"):
        copy.numpy()[0] = 1
    with pytest.raises(ShapeError, match="unequal"):
        irconv.tensor([[1.0], [1.0, 2.0]])


class Refusing:
    """An array of another library that does not convert."""

    def __array__(self, dtype=None, copy=None):
        raise RuntimeError("detach me first")


def test_arrays_of_other_libraries() -> None:
    x = irconv.tensor([1.0, 2.0])
    with pytest.raises(DTypeError, match=r"Refusing does not become a NumPy array: detach me first"):
        irconv.tensor(Refusing())
    with pytest.raises(DTypeError, match="detach me first"):
        irconv.compile(lambda y: y * 2)(Refusing())
    torch = pytest.importorskip("torch")
    assert (x * torch.ones(2)).tolist() == [1.0, 2.0]
    for other in (torch.ones(2, requires_grad=True), torch.ones(2, dtype=torch.bfloat16), torch.ones(2).to_sparse()):
        with pytest.raises(DTypeError, match=r"torch\.Tensor does not become"):
            x * other


def test_specs_are_checked_where_they_are_written() -> None:
    for shape in ((2, -1), (2, 3.5), 3, (None, 3), (2**30, 2**30)):
        with pytest.raises(ShapeError):
            TensorSpec(shape)
    for dtype in ("complex64", "nothing"):
        with pytest.raises(DTypeError):
            TensorSpec((2,), dtype)
    spec = TensorSpec([np.int64(2), 3], np.float16)
    assert spec == TensorSpec((2, 3), "f16") and str(spec.type) == "f16[2,3]"


def test_reading_one_element_of_many_is_an_error() -> None:
    x = irconv.tensor([[1.0, 2.0]])
    for read in (bool, float, int, lambda t: t.item()):
        with pytest.raises(ShapeError, match=r"one element, this one is f32\[1,2\]"):
            read(x)
    assert float(x[:, :1]) == 1.0 and bool(x[0, 0])
    with pytest.raises(DTypeError, match="index"):
        [0, 1][x[0, 0]]


def test_making_tensors_of_impossible_shapes() -> None:
    with pytest.raises(ShapeError, match="negative"):
        irconv.zeros((2, -1))
    with pytest.raises(ShapeError, match="not a shape"):
        irconv.ones("a")
    assert irconv.arange(3, 1).dtype == np.int64 and irconv.arange(0.0, 0.5, 0.25).dtype == np.float32


def test_axes_that_are_not_there() -> None:
    x = irconv.zeros((2, 3))
    for wrong in (lambda: x.swapaxes(0, 2), lambda: x.transpose(0, 0), lambda: x.transpose(0), lambda: x.transpose(0, 5)):
        with pytest.raises(IrconvError, match="ax"):
            wrong()
    assert x.swapaxes(0, -1).shape == (3, 2)
