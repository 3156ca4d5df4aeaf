"""The driver: sources, specialisation, options, structure of arguments and results, errors."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import irconv
from irconv import TensorSpec, nn
from irconv.backends import auto_backend
from irconv.compile import SPECIALISATIONS
from irconv.errors import AttributeValueError, BackendError, DTypeError, IrconvError, ModelError, ShapeError, TraceError
from tests.backends.executables import WithArray, WithDlpack


def scaled(x, factor=2):
    return x * factor


def test_types_specialise_and_are_remembered() -> None:
    exe = irconv.compile(scaled, TensorSpec((2,)))
    first = exe.executable
    assert exe(np.ones(2, np.float32)).tolist() == [2, 2]
    assert exe.executable is first
    assert exe(np.ones((3, 1), np.float64)).dtype == np.float64
    assert exe.executable is not first
    exe(np.ones(2, np.float32))
    assert exe.executable is first


def test_static_values_specialise_too() -> None:
    exe = irconv.compile(scaled)
    assert exe(np.ones(1, np.float32), 3).tolist() == [3]
    assert exe(np.ones(1, np.float32), factor=4).tolist() == [4]
    assert exe(np.ones(1, np.float32)).tolist() == [2]


def test_specialisations_are_bounded() -> None:
    traced = []
    exe = irconv.compile(lambda x: traced.append(x.shape) or x + 1)
    for n in range(1, SPECIALISATIONS + 3):
        exe(np.zeros(n, np.float32))
    exe(np.zeros(SPECIALISATIONS + 2, np.float32))
    assert len(traced) == SPECIALISATIONS + 2
    exe(np.zeros(1, np.float32))  # the least recently used was dropped
    assert len(traced) == SPECIALISATIONS + 3


def test_nested_arguments_and_results() -> None:
    def f(pair, named):
        return {"sum": pair[0] + named["x"], "both": (pair[1], named["x"] * 2)}

    a, b, c = (np.full(2, v, np.float32) for v in (1, 2, 3))
    result = irconv.compile(f)((a, b), {"x": c})
    assert result["sum"].tolist() == [4, 4]
    assert [r.tolist() for r in result["both"]] == [[2, 2], [6, 6]]
    out = {"sum": np.empty(2, np.float32), "both": (np.empty(2, np.float32), np.empty(2, np.float32))}
    again = irconv.compile(f)((a, b), {"x": c}, out=out)
    assert out["both"][1].tolist() == [6, 6]
    assert again["sum"] is out["sum"]


def test_a_graph_is_fixed_to_its_types() -> None:
    graph = irconv.trace(scaled, TensorSpec((2, 3)))
    exe = irconv.compile(graph)
    assert exe(np.ones((2, 3), np.float32)).sum() == 12
    with pytest.raises(ShapeError, match=r"input %x is f32\[2,3\], got f32\[4,3\]"):
        exe(np.ones((4, 3), np.float32))
    with pytest.raises(ShapeError, match="takes 1 inputs, got 2"):
        exe(np.ones((2, 3), np.float32), np.ones(1, np.float32))


def test_an_ir_file_runs_with_its_weights(tmp_path: Path) -> None:
    model = nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU())
    x = np.random.default_rng(0).standard_normal((1, 1, 5, 5)).astype(np.float32)
    irconv.save(irconv.trace(model, x), tmp_path / "model.ir")
    np.testing.assert_array_equal(irconv.compile(tmp_path / "model.ir")(x), irconv.compile(model)(x))


def test_precision() -> None:
    model = nn.Conv2d(64, 64, 3, padding=1)
    x = np.random.default_rng(0).standard_normal((1, 64, 32, 32)).astype(np.float32)
    fast, strict = (irconv.compile(model, x, precision=p)(x) for p in ("fast", "strict"))
    np.testing.assert_allclose(fast, strict, rtol=0, atol=2e-5 * np.abs(strict).max())
    with pytest.raises(AttributeValueError, match="neither 'fast' nor 'strict'"):
        irconv.compile(model, x, precision="sloppy")


def test_checking_mode_and_stages() -> None:
    exe = irconv.compile(lambda x: (x + 0) * 1 + np.float32(2) * 3, TensorSpec((4,)), check=True)
    names = [stage.name for stage in exe.stages]
    assert names[0] == "trace"
    assert "simplify{differentiated=true}" in names and "dce" in names
    assert exe.graph is exe.stages[-1].graph
    assert len(exe.stages[0].graph) > len(exe.graph)
    assert exe.backend == auto_backend()


@pytest.mark.parametrize(
    ("call", "error", "words"),
    [
        (lambda: irconv.compile("nowhere.ir"), ModelError, "nowhere.ir"),
        (lambda: irconv.compile(3), ModelError, "cannot compile a int"),
        (lambda: irconv.compile(scaled, TensorSpec((2,)), backend="tpu"), BackendError, "no backend 'tpu'"),
        (lambda: irconv.compile(scaled, TensorSpec((2,)), TensorSpec((2,)), TensorSpec((2,))), TraceError, "too many positional"),
        (lambda: irconv.compile(scaled, TensorSpec((-2,))), ShapeError, "negative"),
        (lambda: irconv.compile(scaled, TensorSpec((2,), "complex64")), DTypeError, "not an element type"),
        (lambda: irconv.compile(scaled).graph, ModelError, "nothing has been compiled"),
        (lambda: irconv.compile(lambda x: 3, TensorSpec((2,))), TraceError, "returned a int"),
        (lambda: irconv.compile(lambda x: None, TensorSpec((2,))), TraceError, "returned a NoneType"),
        (lambda: irconv.compile(lambda x: (), TensorSpec((2,))), TraceError, "returned no tensors"),
    ],
)
def test_errors(call, error, words: str) -> None:
    with pytest.raises(error, match=words) as caught:
        call()
    assert isinstance(caught.value, IrconvError)


def test_anything_with_dlpack_or_array() -> None:
    exe = irconv.compile(scaled)
    assert exe(WithDlpack(np.ones(3, np.float32))).tolist() == [2, 2, 2]
    assert exe(WithArray(np.arange(3, dtype=np.float32))).tolist() == [0, 2, 4]
    assert exe(irconv.tensor([1.0, 2.0])).tolist() == [2, 4]
    assert exe(np.arange(6, dtype=np.float32).reshape(2, 3).T[::-1]).tolist() == [[4, 10], [2, 8], [0, 6]]


def test_plain_arrays_take_the_same_code_as_anything_else():
    exe = irconv.compile(lambda x: x + x)
    x = np.arange(3, dtype=np.float32)
    first = exe.specialise(irconv.TensorSpec((3,)))
    assert exe(x).tolist() == exe(x.astype(">f4")).tolist() == [0, 2, 4]
    assert exe.executable is first and exe.specialise(x) is first
    for size in range(4, 4 + SPECIALISATIONS):
        exe(np.zeros(size, np.float32))
    assert exe(x).tolist() == [0, 2, 4]
    assert exe.executable is not first  # it was the one used least recently
    last = exe.executable
    for size in range(20, 20 + SPECIALISATIONS - 1):
        exe(np.zeros(size, np.float32))
        exe(x)
    assert exe.executable is last  # kept, as it was used
