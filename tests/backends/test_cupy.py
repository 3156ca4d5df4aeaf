"""The CuPy executable: on a GPU where there is one, and everywhere on a stand-in whose arrays are told apart from NumPy's."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from irconv.backends.arrays.lower import Lowering
from irconv.backends.cupy.backend import CupyBackend, cupy_module
from irconv.backends.cupy.executable import CupyExecutable
from irconv.backends.numpy.backend import NumpyBackend
from irconv.builder import Builder
from irconv.errors import BackendError, DTypeError, ShapeError
from irconv.graph import Graph
from irconv.ops.contract import matmul
from irconv.ops.elementwise import add, multiply, relu, subtract
from irconv.ops.reduce import reduce_mean
from irconv.passes.differentiate import differentiate
from irconv.state import Variable
from irconv.target import Target
from irconv.types import tensor_type
from tests.passes.programs import compiled, state

# --- a device that is none -----------------------------------------------------------------------------------------------


class DeviceArray(np.ndarray):
    """Stands for cupy.ndarray: not to be mixed with NumPy arrays except through ``asarray`` and ``asnumpy``."""

    @property
    def __cuda_array_interface__(self) -> dict[str, Any]:
        return self.__array_interface__


class Stream:
    def synchronize(self) -> None:
        pass


class Device:
    """Stands for the cupy module."""

    ndarray = DeviceArray

    class cuda:  # noqa: N801
        @staticmethod
        def get_current_stream() -> Stream:
            return Stream()

    def __getattr__(self, name: str) -> Any:
        return getattr(np, name)

    def empty(self, shape, dtype=np.float64):
        return np.empty(shape, dtype).view(DeviceArray)

    def asarray(self, array):
        return array if isinstance(array, DeviceArray) else np.array(array).view(DeviceArray)

    def copy(self, array):
        return np.array(array).view(DeviceArray)

    def asnumpy(self, array):
        assert isinstance(array, DeviceArray)
        return np.array(array)

    def byte_bounds(self, array):
        return np.lib.array_utils.byte_bounds(array)

    def copyto(self, target, source, **options):
        if isinstance(source, np.ndarray):
            assert isinstance(target, DeviceArray)
            assert isinstance(source, DeviceArray), "a NumPy array reached the device"
        np.copyto(target, source, **options)


DEVICE = Device()


def build(graph: Graph) -> CupyExecutable:
    """Compile for the stand-in, a kernel per op."""
    lowering = Lowering(DEVICE)
    target = Target("device", workspace=lowering.workspace, writes_in_place=lowering.writes_in_place)
    return CupyExecutable(compiled(graph, target), Lowering(DEVICE))


def step_graph() -> Graph:
    """Least squares by gradient descent."""
    graph = Graph("train")
    builder = Builder(graph)
    x = builder.input("x", tensor_type("f32", (8, 3)))
    target = builder.input("target", tensor_type("f32", (8, 2)))
    w = state(builder, "w", np.ones((3, 2), np.float32))
    error = subtract(matmul(x, w), target)
    loss = reduce_mean(multiply(error, error))
    d_w = differentiate(graph, loss.id, [w.id])[w.id]
    graph.set_update(w.id, subtract(w, multiply(builder.value(d_w), 0.1)).id)
    graph.set_output("loss", loss.id)
    return graph


def evaluation(variable: Variable) -> Graph:
    graph = Graph("eval")
    builder = Builder(graph)
    x = builder.input("x", tensor_type("f32", (8, 3)))
    w = builder.wrap(graph.add_state("w", variable.type, "param", variable))
    graph.set_output("", relu(matmul(x, w)).id)
    return graph


def data():
    rng = np.random.default_rng(0)
    return rng.normal(size=(8, 3)).astype(np.float32), rng.normal(size=(8, 2)).astype(np.float32)


def on_numpy(graph: Graph):
    backend = NumpyBackend()
    return backend.build(compiled(graph, backend.target()))


def test_training_equals_numpy_and_comes_back():
    graph, other = step_graph(), step_graph()
    exe, reference = build(graph), on_numpy(other)
    array = graph.state["w"].array
    for _ in range(3):
        found, expected = exe(*data()), reference(*data())
        assert type(found["loss"]) is np.ndarray
        np.testing.assert_allclose(found["loss"], expected["loss"], rtol=1e-6)
    assert graph.state["w"].array is array
    np.testing.assert_allclose(array, other.state["w"].array, rtol=1e-5)


def test_the_copy_on_the_device_is_shared_and_follows_versions():
    graph = step_graph()
    variable = graph.state["w"]
    step, read = build(graph), build(evaluation(variable))
    x, target = data()
    assert step.copies[variable] is read.copies[variable]
    step(x, target)
    assert step.copies[variable].version == variable.version  # nothing to upload
    np.testing.assert_allclose(read(x), np.maximum(x @ variable.array, 0), rtol=1e-5)
    variable.assign(np.full((3, 2), 2, np.float32))
    np.testing.assert_allclose(read(x), np.maximum(x @ variable.array, 0), rtol=1e-5)


def test_a_variable_on_the_device_stays_there():
    variable = Variable(DEVICE.asarray(np.ones((3, 2), np.float32)))
    exe = build(evaluation(variable))
    assert exe.state_array(variable) is variable.array
    assert not exe.copies
    x, _ = data()
    np.testing.assert_allclose(exe(x), np.maximum(x @ np.ones((3, 2), np.float32), 0), rtol=1e-5)


def test_results_are_where_the_inputs_were():
    exe = build(evaluation(Variable(np.ones((3, 2), np.float32))))
    x, _ = data()
    assert type(exe(x)) is np.ndarray
    there = exe(DEVICE.asarray(x))
    assert type(there) is DeviceArray
    np.testing.assert_array_equal(np.asarray(there), exe(x))
    np.testing.assert_array_equal(exe(np.asfortranarray(x).astype(">f4")), exe(x))


@pytest.mark.parametrize("make", [np.empty, DEVICE.empty], ids=["host", "device"])
def test_out_on_either_side(make):
    exe = build(evaluation(Variable(np.ones((3, 2), np.float32))))
    x, _ = data()
    out = make((8, 2), np.float32)
    assert exe(x, out=out) is out
    np.testing.assert_array_equal(out, exe(x))
    with pytest.raises(ShapeError, match="C-contiguous"):
        exe(x, out=make((2, 8), np.float32).T)
    with pytest.raises(DTypeError):
        exe(x, out=make((8, 2), np.float64))


def test_profile_on_a_device():
    graph = step_graph()
    before = graph.state["w"].array.copy()
    assert build(graph).profile(*data(), repeat=1)
    np.testing.assert_array_equal(graph.state["w"].array, before)


@pytest.mark.parametrize("on_device", [False, True])
def test_bound_calls_read_arrays_as_they_are(on_device):
    variable = Variable(np.ones((3, 2), np.float32))
    exe = build(evaluation(variable))
    x = DEVICE.asarray(data()[0]) if on_device else data()[0]
    call = exe.bind(x)
    for turn in range(3):
        x += turn
        variable.assign(np.full((3, 2), turn + 1, np.float32))
        found = call()
        assert found is call.results
        assert isinstance(found, DeviceArray) == on_device
        np.testing.assert_allclose(np.asarray(found), np.maximum(np.asarray(x) @ variable.array, 0), rtol=1e-5)
    with pytest.raises(ShapeError, match="got an array of shape"):
        exe.bind(x[:2])


# --- with and without a GPU ----------------------------------------------------------------------------------------------


def gpu() -> str:
    """Why there is no GPU to test on; empty if there is one."""
    try:
        cupy_module()
    except BackendError as error:
        return error.message
    return ""


@pytest.mark.skipif(not gpu(), reason="there is a GPU")
def test_it_explains_itself_without_a_gpu():
    with pytest.raises(BackendError, match="backend='numpy'"):
        CupyBackend().target()


@pytest.mark.gpu
@pytest.mark.skipif(bool(gpu()), reason=gpu())
def test_training_on_a_gpu():
    cupy = cupy_module()
    backend = CupyBackend()
    graph, other = step_graph(), step_graph()
    exe = backend.build(compiled(graph, backend.target()))
    reference = on_numpy(other)
    for _ in range(3):
        found, expected = exe(*map(cupy.asarray, data())), reference(*data())
        assert isinstance(found["loss"], cupy.ndarray)
        np.testing.assert_allclose(cupy.asnumpy(found["loss"]), expected["loss"], rtol=1e-4)
    np.testing.assert_allclose(graph.state["w"].array, other.state["w"].array, rtol=1e-4)


@pytest.mark.gpu
@pytest.mark.skipif(bool(gpu()), reason=gpu())
def test_an_update_on_a_gpu_from_host_arrays():
    backend = CupyBackend()
    graph = Graph()
    builder = Builder(graph)
    w = state(builder, "w", np.zeros(4, np.float32))
    graph.set_update(w.id, add(w, 1.0).id)
    graph.set_output("", relu(w).id)
    exe = backend.build(compiled(graph, backend.target()))
    assert type(exe()) is np.ndarray
    np.testing.assert_array_equal(graph.state["w"].array, np.ones(4, np.float32))
