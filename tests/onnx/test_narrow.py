"""Element types narrower than irconv's: how they are stored, converted, computed with and trained."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("onnx", reason="needs the onnx package: pip install 'irconv[onnx]'")

import ml_dtypes
import onnx
from onnx import TensorProto, helper

import irconv
from irconv import nn, optim
from irconv.errors import DTypeError, ModelError
from irconv.frontends.onnx import export, load_model
from irconv.frontends.onnx.formats import FORMATS, decode
from irconv.nn.module import Parameter
from tests.onnx.building import f32, info, load, model

BF16, I4 = TensorProto.BFLOAT16, TensorProto.INT4
FLOATS = [number for number, form in FORMATS.items() if form.rounding is not None]
bfloat16 = np.dtype(ml_dtypes.bfloat16)


def theirs(number: int) -> np.dtype:
    return np.dtype(getattr(ml_dtypes, FORMATS[number].theirs))


def rounded(x: Any) -> np.ndarray:
    return np.asarray(x).astype(bfloat16).astype(np.float32)


def named(number: int) -> str:
    return str(TensorProto.DataType.Name(number))


# --- stored --------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", sorted(FORMATS), ids=named)
def test_every_code_stands_for_the_value_that_another_library_reads(number: int) -> None:
    form, kind = FORMATS[number], theirs(number)
    codes = np.arange(2**form.bits, dtype=np.uint16 if form.bits == 16 else np.uint8)
    with np.errstate(invalid="ignore"):
        wanted = codes.view(kind).astype(form.carrier.numpy)
    per_byte = max(8 // form.bits, 1)
    packed = codes
    if per_byte > 1:
        packed = sum((codes[i::per_byte] << (form.bits * i) for i in range(per_byte)), np.zeros(codes.size // per_byte, np.uint8))
    found = decode(packed.tobytes(), form, codes.size)
    assert found.dtype == form.carrier.numpy
    np.testing.assert_array_equal(found, wanted)
    np.testing.assert_array_equal(np.signbit(found[found == 0]), np.signbit(wanted[wanted == 0]))


def tensors(number: int, values: list[float]) -> list[TensorProto]:
    """The same tensor as raw bytes, and as numbers in a field."""
    fields = helper.make_tensor("w", number, [len(values)], values)
    raw = onnx.numpy_helper.from_array(np.array(values, np.float32).astype(theirs(number)), "w")
    return [fields, raw]


@pytest.mark.parametrize("number", sorted(FORMATS), ids=named)
def test_stored_tensors(number: int) -> None:
    values = [1.0, 2.0, 1.0] if "U" in named(number) or "8E8" in named(number) else [1.0, -2.0, 1.0]
    for tensor in tensors(number, values):
        node = helper.make_node("Cast", ["w"], ["y"], to=TensorProto.FLOAT)
        np.testing.assert_array_equal(load(model([node], [], ["y"], [tensor]))().numpy(), np.float32(values))


def test_external_data(tmp_path: Path) -> None:
    (tensor,) = tensors(I4, [1, -2, 7, -8, 3])[1:]
    proto = model([helper.make_node("Cast", ["w"], ["y"], to=TensorProto.FLOAT)], [], ["y"], [tensor])
    path = tmp_path / "model.onnx"
    onnx.save(proto, path, save_as_external_data=True, size_threshold=0)
    np.testing.assert_array_equal(load_model(path)().numpy(), np.float32([1, -2, 7, -8, 3]))


@pytest.mark.parametrize("number", [BF16, I4], ids=named)
def test_data_that_do_not_fill_their_shape(number: int) -> None:
    for tensor in tensors(number, [1, 2, 3]):
        tensor.dims[0] = 9
        with pytest.raises(ModelError, match=r"'w' .* needs \d+ bytes, has"):
            load(model([helper.make_node("Identity", ["w"], ["y"])], [], ["y"], [tensor]))


# --- converted -----------------------------------------------------------------------------------------------------------------


def cast(number: int, source: int = TensorProto.FLOAT, **attributes: Any) -> Any:
    node = helper.make_node("Cast", ["x"], ["y"], to=number, **attributes)
    return irconv.compile(load(model([node], [info("x", None, dtype=source)], ["y"], opset=25)), backend="numpy")


@pytest.mark.parametrize("backend", ["numpy", "auto"])
def test_arrays_of_either_type_call_after_call(backend: str) -> None:
    node = helper.make_node("Add", ["x", "x"], ["y"])
    exe = irconv.compile(load(model([node], [info("x", None, dtype=BF16)], ["y"])), backend=backend)
    narrow = np.float32([1.5, -2.25, 300]).astype(bfloat16)
    wide = narrow.astype(np.float32)
    for array in (narrow, narrow, wide, wide, wide, narrow, wide):
        np.testing.assert_array_equal(np.asarray(exe(array)).astype(np.float32), 2 * wide)
    call = exe.bind(wide)
    wide[0] = 4
    np.testing.assert_array_equal(np.asarray(call()).astype(np.float32), 2 * wide)
    with pytest.raises(DTypeError, match="converted before it is read"):
        exe.bind(narrow)


@pytest.mark.parametrize("saturate", [0, 1])
@pytest.mark.parametrize("number", FLOATS, ids=named)
def test_casts_to_floats(number: int, saturate: int) -> None:
    kind = theirs(number)
    x = np.concatenate([f32(500) * 3, f32(500) * 300, f32(200) * 1e6, f32(200) * 1e-7, [np.inf, -np.inf, np.nan, -0.0]]).astype("f4")
    source = x
    if saturate and "FLOAT8" in named(number):
        source = np.clip(x, *(np.float32(v) for v in (ml_dtypes.finfo(kind).min, ml_dtypes.finfo(kind).max)))
    with np.errstate(all="ignore"):
        wanted = source.astype(kind).astype(np.float32)
    np.testing.assert_array_equal(cast(number, saturate=saturate)(x), wanted)


@pytest.mark.parametrize("number", [n for n in FORMATS if "INT" in named(n)], ids=named)
def test_casts_to_integers_drop_higher_bits(number: int) -> None:
    kind, form = theirs(number), FORMATS[number]
    whole = np.arange(-128, 128, dtype=np.int16)
    found = cast(number, TensorProto.INT16)(whole)
    bits = whole & (2**form.bits - 1)
    signed = form.carrier.kind == "int"
    wanted = np.where(signed & (bits >= 2 ** (form.bits - 1)), bits - 2**form.bits, bits)
    assert found.dtype == form.carrier.numpy
    np.testing.assert_array_equal(found, wanted)
    inside = np.float32([0.9, 1.2, 1.9]) * (-1 if signed else 1)
    np.testing.assert_array_equal(cast(number)(inside), inside.astype(kind).astype(form.carrier.numpy))


@pytest.mark.parametrize(
    ("mode", "saturate", "wanted"),
    [
        ("up", 1, [2.0**-127, 2.0**-127, 1, 2, 2, 4, 2.0**127, 2.0**127, np.nan]),
        ("down", 1, [2.0**-127, 2.0**-127, 1, 1, 1, 2, 2.0**127, 2.0**127, np.nan]),
        ("nearest", 1, [2.0**-127, 2.0**-127, 1, 1, 2, 4, 2.0**127, 2.0**127, np.nan]),
        ("nearest", 0, [np.nan, np.nan, 1, 1, 2, 4, np.nan, np.nan, np.nan]),
        ("up", 0, [np.nan, np.nan, 1, 2, 2, 4, np.nan, np.nan, np.nan]),
    ],
)
def test_casts_to_powers_of_two(mode: str, saturate: int, wanted: list[float]) -> None:
    x = np.float32([0, 1e-40, 1, 1.25, 1.5, 3.1, 3e38, np.inf, np.nan])
    found = cast(TensorProto.FLOAT8E8M0, round_mode=mode, saturate=saturate)(x)
    np.testing.assert_array_equal(found, np.float32(wanted))


def test_a_double_is_rounded_once() -> None:
    x = np.float64([1 + 2**-8 + 2**-40, 1 + 2**-8, 1 + 2**-8 - 2**-40])
    np.testing.assert_array_equal(cast(BF16, TensorProto.DOUBLE)(x), np.float32([1 + 2**-7, 1, 1]))


def test_a_cast_from_a_narrow_type_is_wide_again() -> None:
    nodes = [
        helper.make_node("Cast", ["x"], ["narrow"], to=BF16),
        helper.make_node("Cast", ["narrow"], ["wide"], to=TensorProto.FLOAT),
        helper.make_node("Mul", ["wide", "wide"], ["y"]),
        helper.make_node("Mul", ["narrow", "narrow"], ["z"]),
    ]
    x = f32(100)
    y, z = irconv.compile(load(model(nodes, [info("x", 100)], ["y", "z"])))(x)
    np.testing.assert_array_equal(y, rounded(x) ** 2)
    np.testing.assert_array_equal(z, rounded(rounded(x) ** 2))
    assert not np.array_equal(y, z)


# --- computed with -------------------------------------------------------------------------------------------------------------


def test_every_result_of_a_narrow_type_is_rounded() -> None:
    nodes = [
        helper.make_node("Mul", ["x", "w"], ["product"]),
        helper.make_node("Transpose", ["product"], ["turned"]),
        helper.make_node("ReduceSum", ["turned"], ["sum"], keepdims=0),
        helper.make_node("Shape", ["product"], ["shape"]),
    ]
    x, w = f32(8, 9), rounded(f32(9))
    tensor = onnx.numpy_helper.from_array(w.astype(bfloat16), "w")
    net = load(model(nodes, [info("x", 8, 9, dtype=BF16)], ["turned", "sum", "shape"], [tensor]))
    product = rounded(rounded(x) * w)
    for given in (x.astype(bfloat16), rounded(x), x):
        turned, total, shape = irconv.compile(net)(given)
        np.testing.assert_array_equal(turned, product.T)
        np.testing.assert_allclose(total, rounded(product.sum(dtype=np.float64)), rtol=2**-8)
        assert np.array_equal(total, rounded(total))
        np.testing.assert_array_equal(shape, [8, 9])
    assert str(net.inputs[0]) == "x: bf16[8,9]"


def test_narrow_values_pass_through_branches_and_loops_and_functions() -> None:
    body = helper.make_graph(
        [helper.make_node("Identity", ["go"], ["again"]), helper.make_node("Mul", ["state", "x"], ["next"])],
        "body",
        [info("i", dtype=TensorProto.INT64), info("go", dtype=TensorProto.BOOL), info("state", 50, dtype=BF16)],
        [info("again", dtype=TensorProto.BOOL), info("next", 50, dtype=BF16)],
    )
    trips = helper.make_tensor("trips", TensorProto.INT64, [], [3])
    nodes = [
        helper.make_node("Loop", ["trips", "", "x"], ["power"], body=body),
        helper.make_node("Mish", ["power"], ["y"]),  # which ONNX defines by simpler operators
    ]
    x = rounded(f32(50))
    power, y = irconv.compile(load(model(nodes, [info("x", 50, dtype=BF16)], ["power", "y"], [trips], opset=22)))(x)
    wanted = x
    for _ in range(3):
        wanted = rounded(wanted * x)
    np.testing.assert_array_equal(power, wanted)
    assert np.array_equal(y, rounded(y))
    exact = wanted * np.tanh(np.log1p(np.exp(wanted.astype(np.float64))))
    np.testing.assert_allclose(y, exact, rtol=2**-6, atol=1e-6)


def test_a_narrow_network_trains() -> None:
    weight = onnx.numpy_helper.from_array((f32(3, 4) * 0.3).astype(bfloat16), "w")
    net = load(model([helper.make_node("Gemm", ["x", "w"], ["y"], transB=1)], [info("x", 16, 4, dtype=BF16)], ["y"], [weight]))
    parameter = dict(net.named_parameters())["w"]
    assert isinstance(parameter, Parameter)
    assert np.array_equal(parameter.numpy(), rounded(parameter.numpy()))
    step = irconv.compile_step(net, nn.CrossEntropyLoss(), optim.SGD(net.parameters(), lr=0.5))
    x, target = f32(16, 4), np.arange(16) % 3
    x[np.arange(16), target] += 3
    losses = [float(step(x, target)) for _ in range(30)]
    assert losses[-1] < 0.5 * losses[0]


def test_imported_and_exported() -> None:
    x = f32(64)
    nodes = [helper.make_node("Add", ["x", "x"], ["y"]), helper.make_node("Exp", ["y"], ["z"])]
    net = load(model(nodes, [info("x", 64, dtype=BF16)], ["z"]))
    again = load_model(export(irconv.trace(net, irconv.TensorSpec((64,)))).SerializeToString())
    np.testing.assert_array_equal(irconv.compile(again)(x), irconv.compile(net)(x))
