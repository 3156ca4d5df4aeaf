"""Cross-correlation and convolution: the numbers of the course, computed each way."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
import scipy.signal
from numpy.testing import assert_allclose, assert_array_equal

import irconv
import irconv.nn.functional as F
from irconv import TensorSpec, nn, optim
from irconv.errors import TraceError
from irconv.interpret import evaluate
from irconv.ops.contract import im2col
from tests.worked_examples.ways import check, check_gradients, f32, f64, image, normal

X = f32([[0, 1, 2], [3, 4, 5], [6, 7, 8]])
K = f32([[0, 1], [2, 3]])
CORRELATED = [[19, 25], [37, 43]]


def looped(x, k, y):
    """The definition, as a newcomer writes it."""
    height, width = k.shape
    for i in range(y.shape[0]):
        for j in range(y.shape[1]):
            y[i, j] = (x[i : i + height, j : j + width] * k).sum()
    return y


def output_shape(x, k):
    return (x.shape[0] - k.shape[0] + 1, x.shape[1] - k.shape[1] + 1)


# --- corr2d ------------------------------------------------------------------------------------------------------------


def test_corr2d() -> None:
    check(F.conv2d, image(X), image(K), expected=[[CORRELATED]])


def test_corr2d_as_loops_into_irconv_zeros() -> None:
    check(lambda x, k: looped(x, k, irconv.zeros(output_shape(x, k))), X, K, expected=CORRELATED)


def test_corr2d_as_loops_into_numpy_zeros_like() -> None:
    check(lambda x, k: looped(x, k, np.zeros(output_shape(x, k), like=x)), X, K, expected=CORRELATED)


def test_corr2d_as_loops_into_a_plain_numpy_array_says_so_at_the_users_line() -> None:
    def corr2d(x, k):
        y = np.zeros(output_shape(x, k))
        y[0, 0] = (x[:2, :2] * k).sum()
        return y

    with pytest.raises(TraceError) as caught:
        irconv.trace(corr2d, X, K)
    line = corr2d.__code__.co_firstlineno + 2
    assert f"test_convolution.py:{line}" in str(caught.value) and "irconv.zeros" in str(caught.value)


def test_loops_that_unroll_into_very_many_nodes_warn_with_the_line() -> None:
    def corr2d(x, k):
        return looped(x, k, irconv.zeros(output_shape(x, k)))

    line = looped.__code__.co_firstlineno + 5
    with pytest.warns(UserWarning, match=rf"test_convolution\.py:{line}: this line has recorded more than \d+ nodes"):
        irconv.trace(corr2d, TensorSpec((41, 41)), TensorSpec((2, 2)))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        irconv.trace(corr2d, TensorSpec((10, 10)), TensorSpec((2, 2)))


def test_gradients_flow_through_the_loops() -> None:
    def corr2d(x, k):
        return (looped(x, k, irconv.zeros(output_shape(x, k))) * f32(CORRELATED)).sum()

    by_x = scipy.signal.convolve2d(f32(CORRELATED), K)
    by_k = scipy.signal.correlate2d(X, f32(CORRELATED), mode="valid")
    check_gradients(corr2d, X, K, expected=[by_x, by_k])
    check_gradients(lambda x, k: (F.conv2d(x, k) * f32(CORRELATED)).sum(), image(X), image(K), expected=[[[by_x]], [[by_k]]])


# --- channels ----------------------------------------------------------------------------------------------------------

TWO_CHANNELS = np.stack([X, X + 1])[None]
TWO_KERNELS = np.stack([K, K + 1])


def test_two_input_channels() -> None:
    check(F.conv2d, TWO_CHANNELS, TWO_KERNELS[None], expected=[[[[56, 72], [104, 120]]]])


def test_three_output_channels() -> None:
    weight = np.stack([TWO_KERNELS, TWO_KERNELS + 1, TWO_KERNELS + 2])
    assert weight.shape == (3, 2, 2, 2)
    expected = [[[56, 72], [104, 120]], [[76, 100], [148, 172]], [[96, 128], [192, 224]]]
    check(F.conv2d, TWO_CHANNELS, weight, expected=[expected])


def test_one_by_one_convolution_is_a_matmul_over_channels() -> None:
    x, k = normal(3, 3, 3), normal(2, 3, 1, 1)
    as_product = (k.reshape(2, 3) @ x.reshape(3, 9)).reshape(2, 3, 3)
    check(F.conv2d, x, k, expected=as_product, rtol=1e-12, atol=1e-12)
    assert np.abs(F.conv2d(irconv.tensor(x), irconv.tensor(k)).numpy() - as_product).sum() < 1e-6


# --- edges -------------------------------------------------------------------------------------------------------------

STRIPES = np.ones((6, 8), np.float32)
STRIPES[:, 2:6] = 0
EDGE = f32([[1, -1]])
EDGES = np.tile(f32([0, 1, 0, 0, 0, -1, 0]), (6, 1))


def test_edge_detector() -> None:
    check(F.conv2d, image(STRIPES), image(EDGE), expected=image(EDGES))
    check(F.conv2d, image(STRIPES.T), image(EDGE), expected=image(np.zeros((8, 5))))


def learner() -> nn.Conv2d:
    conv = nn.Conv2d(1, 1, (1, 2), bias=False)
    conv.weight.assign(image([[-0.3133, 0.1742]]))
    return conv


def squared_error(y, target):
    return ((y - target) ** 2).sum()


def learn_by_run(conv: nn.Conv2d) -> list[float]:
    optimizer = optim.SGD(conv.parameters(), lr=0.03)
    losses = []
    for _ in range(10):
        optimizer.zero_grad()
        loss = squared_error(conv(irconv.tensor(image(STRIPES))), irconv.tensor(image(EDGES)))
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses


def learn_interpreted(conv: nn.Conv2d) -> list[float]:
    """The recorded step, run by the reference: new values of states are written after each run."""
    step = irconv.compile_step(conv, squared_error, optim.SGD(conv.parameters(), lr=0.03), image(STRIPES), image(EDGES))
    graph = step.stages[0].graph
    losses = []
    for _ in range(10):
        values = evaluate(graph, dict(zip(graph.inputs, (image(STRIPES), image(EDGES)), strict=True)))
        for state, new in graph.updates.items():
            graph.state[graph[state].name].assign(values[new])
        losses.append(float(values[graph.outputs["loss"]]))
    return losses


def learn_compiled(conv: nn.Conv2d) -> list[float]:
    optimizer = optim.SGD(conv.parameters(), lr=0.03)
    step = irconv.compile_step(conv, squared_error, optimizer, image(STRIPES), image(EDGES), backend="numpy")
    return [float(step(image(STRIPES), image(EDGES))) for _ in range(10)]


@pytest.mark.parametrize("learn", [learn_by_run, learn_interpreted, learn_compiled])
def test_learning_the_edge_kernel(learn) -> None:
    conv = learner()
    losses = learn(conv)
    assert_allclose(losses[1::2], [7.789, 1.352, 0.245, 0.049, 0.011], atol=0.0006)
    assert_allclose(conv.weight.numpy().ravel(), [0.9782, -0.9931], atol=0.00006)


# --- true convolution --------------------------------------------------------------------------------------------------


def sequence(numbers) -> np.ndarray:
    return f64(numbers)[None, None]


def full_convolution(x, w):
    """Correlation with the flipped kernel, padded by one less than its length."""
    return F.conv1d(x, np.flip(w, -1), padding=w.shape[-1] - 1)


def test_true_convolution_is_correlation_with_the_flipped_kernel() -> None:
    expected = [[[1, 4, 10, 16, 17, 12]]]
    assert_array_equal(scipy.signal.convolve([1, 2, 3, 4], [1, 2, 3]), expected[0][0])
    for a, b in (([1, 2, 3, 4], [1, 2, 3]), ([1, 2, 3], [1, 2, 3, 4])):  # it commutes
        check(full_convolution, sequence(a), sequence(b), expected=expected)
        check(F.conv_transpose1d, sequence(a), sequence(b), expected=expected)  # which is what the transpose computes
    check(lambda x: F.conv1d(x, sequence([3, 2, 1]), padding=2), sequence([1, 2, 3, 4]), expected=expected)


@pytest.mark.parametrize(("n", "k"), [(4, 3), (3, 4), (1, 5), (6, 6)])
def test_true_convolution_as_scipy(n: int, k: int) -> None:
    x, w = normal(n), normal(k)
    check(full_convolution, x[None, None], w[None, None], expected=scipy.signal.convolve(x, w)[None, None], rtol=1e-12, atol=1e-12)
    image_, kernel = normal(n + 1, n), normal(k, k + 1)
    result = F.conv_transpose2d(irconv.tensor(image(image_, float)), irconv.tensor(image(kernel, float)))
    assert_allclose(result.numpy()[0, 0], scipy.signal.convolve2d(image_, kernel), rtol=1e-12, atol=1e-12)


# --- as a matrix -------------------------------------------------------------------------------------------------------

INPUTS, WEIGHTS, V = f64([1, -2, 3, 5, -4]), f64([2, 7, -3]), f64([1, 4, -1, 2, 3])
BANDED = f64([[7, -3, 0, 0, 0], [2, 7, -3, 0, 0], [0, 2, 7, -3, 0], [0, 0, 2, 7, -3], [0, 0, 0, 2, 7]])
COLUMNS = f64([[0, 1, -2], [1, -2, 3], [-2, 3, 5], [3, 5, -4], [5, -4, 0]])


def convolved(x, w):
    return F.conv1d(x[None, None], w[None, None], padding=1)[0, 0]


def test_convolution_is_a_product_with_a_banded_matrix() -> None:
    check(convolved, INPUTS, WEIGHTS, expected=BANDED @ INPUTS)
    # the matrix read off the program: column j is what it makes of the j-th unit vector
    check(lambda: irconv.stack([convolved(irconv.tensor(e), irconv.tensor(WEIGHTS)) for e in np.eye(5)], 1), expected=BANDED)


def test_its_gradients_are_the_transposed_matrices() -> None:
    by_x = scipy.signal.correlate(V, WEIGHTS[::-1], mode="same")
    assert_array_equal(by_x, BANDED.T @ V)
    expected = [BANDED.T @ V, COLUMNS.T @ V]
    check_gradients(lambda x, w: (convolved(x, w) * V).sum(), INPUTS, WEIGHTS, expected=expected)
    _, pullback = irconv.vjp(convolved, INPUTS, WEIGHTS)
    for found, wanted in zip(pullback(V), expected, strict=True):
        assert_array_equal(found.numpy(), wanted)


def test_im2col_prints_that_matrix_and_unfold_its_transpose() -> None:
    check(lambda x: im2col(x[None, None], 3, 1, 1)[0], INPUTS, expected=COLUMNS)
    check(lambda x: im2col(x[None, None], 3, 1, 1)[0] @ WEIGHTS, INPUTS, expected=BANDED @ INPUTS)
    check(lambda x: F.unfold(x[None, None], 3, padding=1)[0], INPUTS, expected=COLUMNS.T)


def test_im2col_has_rows_for_windows_and_columns_for_channels_times_taps() -> None:
    x = np.arange(2 * 4 * 3, dtype=np.float64).reshape(2, 4, 3)  # two samples, four channels in two groups
    columns = irconv.trace(lambda x: im2col(x, 2, groups=2), x)
    assert columns[columns.outputs[""]].type.shape == (2, 2 * 2, 2 * 2)  # group, sample x window, channel x tap
    expected = [[[x[n, 2 * g + c, w + t] for c in range(2) for t in range(2)] for n in range(2) for w in range(2)] for g in range(2)]
    check(lambda x: im2col(x, 2, groups=2), x, expected=expected)


# --- fixed kernels -----------------------------------------------------------------------------------------------------

FIXED = f32([np.full((3, 3), 1 / 9), [[0, -1, 0], [-1, 5, -1], [0, -1, 0]], [[1, 0, -1], [2, 0, -2], [1, 0, -1]]])[:, None]


class BesideLearned(nn.Module):
    """Blur, sharpen and Sobel, fixed, beside two kernels that are learned."""

    def __init__(self):
        super().__init__()
        self.fixed = nn.Conv2d(1, 3, 3, padding=1, bias=False)
        self.fixed.weight.assign(FIXED)
        self.fixed.weight.requires_grad_(False)
        self.learned = nn.Conv2d(1, 2, 3, padding=1)

    def forward(self, x):
        return irconv.concatenate([self.fixed(x), self.learned(x)], axis=1)


def test_fixed_kernels_run_beside_learned_ones_and_receive_no_gradient() -> None:
    model, x, target = BesideLearned(), normal(2, 1, 6, 7, dtype=np.float32), normal(2, 5, 6, 7, dtype=np.float32)
    correlations = [[scipy.signal.correlate2d(sample[0], k[0], mode="same") for k in FIXED] for sample in x]
    check(lambda x: model(x)[:, :3], x, expected=correlations, rtol=1e-5, atol=1e-5)

    squared_error(model(irconv.tensor(x)), irconv.tensor(target)).backward()
    assert model.fixed.weight.grad is None and model.learned.weight.grad is not None

    graph = irconv.trace(lambda x, target: squared_error(model(x), target), x, target)
    assert graph["fixed.weight"].attributes.role == "frozen"
    gradients = [path for path in irconv.differentiate(graph).outputs if path.startswith("d_")]
    assert gradients == ["d_learned.weight", "d_learned.bias"]

    before = model.learned.weight.numpy().copy()
    step = irconv.compile_step(model, squared_error, optim.SGD(model.parameters(), lr=1e-3), x, target, backend="numpy")
    first = step(x, target)
    assert step(x, target) < first
    assert_array_equal(model.fixed.weight.numpy(), FIXED)
    assert not np.array_equal(model.learned.weight.numpy(), before)
