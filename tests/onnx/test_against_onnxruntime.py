"""Operators with many attributes against onnxruntime, over generated combinations."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

onnx = pytest.importorskip("onnx", reason="needs the onnx package: pip install 'irconv[onnx]'")
runtime = pytest.importorskip("onnxruntime", reason="needs the onnxruntime package")

from irconv.frontends.onnx import load_model  # noqa: E402  imports onnx

RNG = np.random.default_rng(0)


def model(operator: str, inputs: dict[str, np.ndarray], outputs: int, opset: int, **attributes) -> bytes:
    """A model of one node; inputs of size zero stand for inputs that are left out."""
    names = [name if array.size else "" for name, array in inputs.items()]
    while names and not names[-1]:
        names.pop()
    node = onnx.helper.make_node(operator, names, [f"y{i}" for i in range(outputs)], **attributes)
    ports = [
        onnx.helper.make_tensor_value_info(name, onnx.helper.np_dtype_to_tensor_dtype(array.dtype), array.shape)
        for name, array in inputs.items()
        if array.size
    ]
    results = [onnx.helper.make_empty_tensor_value_info(f"y{i}") for i in range(outputs)]
    graph = onnx.helper.make_graph([node], "one", ports, results)
    made = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", opset)], ir_version=10)
    return onnx.shape_inference.infer_shapes(made).SerializeToString()


def check(
    operator: str, inputs: dict[str, np.ndarray], outputs: int = 1, opset: int = 19, tolerance: float = 1e-5, **attributes
):
    proto = model(operator, inputs, outputs, opset, **attributes)
    given = {name: array for name, array in inputs.items() if array.size}
    options = runtime.SessionOptions()
    options.log_severity_level = 4
    expected = runtime.InferenceSession(proto, options).run(None, given)
    found = load_model(proto)(*given.values())
    found = found if isinstance(found, tuple) else (found,)
    assert len(found) == len(expected)
    for ours, theirs in zip(found, expected, strict=True):
        assert (ours.shape, ours.dtype) == (theirs.shape, theirs.dtype)
        np.testing.assert_allclose(ours.numpy(), theirs, rtol=tolerance, atol=tolerance)


NONE = np.zeros(0, np.float32)

# --- Resize ----------------------------------------------------------------------------------------------------------------

COORDINATES = ("half_pixel", "pytorch_half_pixel", "align_corners", "asymmetric", "half_pixel_symmetric")
MODES = [
    *({"mode": "nearest", "nearest_mode": r} for r in ("floor", "ceil", "round_prefer_floor", "round_prefer_ceil")),
    {"mode": "linear"},
    {"mode": "cubic"},
    {"mode": "cubic", "cubic_coeff_a": -0.5, "exclude_outside": 1},
]
IMAGE = RNG.normal(size=(1, 2, 5, 6)).astype(np.float32)


@pytest.mark.parametrize("mode", MODES, ids=lambda m: "-".join(map(str, m.values())))
@pytest.mark.parametrize("coordinates", COORDINATES)
@pytest.mark.parametrize("size", [(7, 9), (3, 4), (10, 12), (1, 6)])
def test_resize_to_sizes(mode, coordinates, size):
    if coordinates == "half_pixel_symmetric" and mode.get("nearest_mode") == "floor" and size == (3, 4):
        pytest.skip("onnxruntime rounds the position 2 down to just below it")
    sizes = np.array((1, 2, *size))
    inputs = {"x": IMAGE, "roi": NONE, "scales": NONE, "sizes": sizes}
    check("Resize", inputs, coordinate_transformation_mode=coordinates, **mode)


@pytest.mark.parametrize("mode", [*MODES[:1], *MODES[4:]], ids=lambda m: "-".join(map(str, m.values())))
@pytest.mark.parametrize("coordinates", ["half_pixel", "asymmetric"])
@pytest.mark.parametrize("factors", [(2.0, 2.0), (0.6, 1.7), (1.0, 2.5), (0.7, 0.5)])
def test_resize_by_scales(mode, coordinates, factors):
    scales = np.array((1, 1, *factors), np.float32)
    check("Resize", {"x": IMAGE, "roi": NONE, "scales": scales}, coordinate_transformation_mode=coordinates, **mode)


@pytest.mark.parametrize("mode", ["linear", "cubic"])
@pytest.mark.parametrize("size", [(3, 2), (2, 6), (9, 4)])
def test_resize_with_antialias(mode, size):
    x = RNG.normal(size=(1, 1, 8, 9)).astype(np.float32)
    sizes = np.array((1, 1, *size))
    inputs = {"x": x, "roi": NONE, "scales": NONE, "sizes": sizes}
    check("Resize", inputs, mode=mode, antialias=1, exclude_outside=1, coordinate_transformation_mode="half_pixel")


@pytest.mark.parametrize("region", [(0.1, 0.2, 0.8, 0.9), (-0.3, 0.0, 1.2, 1.0), (0.9, 0.35, 0.1, 0.35)])
@pytest.mark.parametrize("mode", ["nearest", "linear", "cubic"])
def test_crop_and_resize(region, mode):
    roi = np.array((0, 0, *region[:2], 1, 1, *region[2:]), np.float32)
    inputs = {"x": IMAGE, "roi": roi, "scales": NONE, "sizes": np.array((1, 2, 4, 3))}
    check("Resize", inputs, mode=mode, coordinate_transformation_mode="tf_crop_and_resize", extrapolation_value=-3.0)


@pytest.mark.parametrize("policy", ["stretch", "not_larger", "not_smaller"])
@pytest.mark.parametrize("axes", [(2, 3), (3, 2), (1, 2)])
def test_resize_of_axes_keeps_the_aspect_ratio(policy, axes):
    inputs = {"x": IMAGE, "roi": NONE, "scales": NONE, "sizes": np.array((8, 9))}
    check("Resize", inputs, mode="nearest", axes=list(axes), keep_aspect_ratio_policy=policy)


@pytest.mark.parametrize("mode", ["nearest", "linear"])
@pytest.mark.parametrize("opset", [7, 9, 10])
def test_upsampling_of_old(mode, opset):
    factors = (1.0, 1.0, 2.0, 3.0)
    if opset == 7:
        check("Upsample", {"x": IMAGE}, opset=7, mode=mode, scales=factors)
    else:
        check(
            "Upsample" if opset == 9 else "Resize",
            {"x": IMAGE, "scales": np.array(factors, np.float32)},
            opset=opset,
            mode=mode,
        )


# --- recurrent layers --------------------------------------------------------------------------------------------------------

GATES = {"RNN": 1, "GRU": 3, "LSTM": 4}
FUNCTIONS = {"RNN": 1, "GRU": 2, "LSTM": 3}
STEPS, BATCH, INPUT, HIDDEN = 4, 3, 2, 5


def recurrent_inputs(operator: str, directions: int, bias: bool, lengths: bool, states: bool, peepholes: bool = False):
    def some(*shape: int) -> np.ndarray:
        return RNG.normal(size=shape).astype(np.float32)

    gates = GATES[operator] * HIDDEN
    inputs = {"x": some(STEPS, BATCH, INPUT), "w": some(directions, gates, INPUT), "r": some(directions, gates, HIDDEN)}
    inputs["b"] = some(directions, 2 * gates) if bias else NONE
    inputs["lengths"] = np.array([4, 1, 3], np.int32) if lengths else NONE
    inputs["h"] = some(directions, BATCH, HIDDEN) if states else NONE
    if operator == "LSTM":
        inputs["c"] = some(directions, BATCH, HIDDEN) if states else NONE
        inputs["p"] = some(directions, 3 * HIDDEN) if peepholes else NONE
    return inputs


def run_recurrent(operator: str, direction: str, inputs, **attributes) -> None:
    outputs = 3 if operator == "LSTM" else 2
    check(operator, inputs, outputs, opset=14, hidden_size=HIDDEN, direction=direction, **attributes)


@pytest.mark.parametrize("operator", GATES)
@pytest.mark.parametrize("direction", ["forward", "reverse", "bidirectional"])
@pytest.mark.parametrize(("bias", "lengths", "states"), [(False, False, False), (True, False, True), (True, True, True)])
def test_recurrent_layers(operator, direction, bias, lengths, states):
    directions = 2 if direction == "bidirectional" else 1
    run_recurrent(operator, direction, recurrent_inputs(operator, directions, bias, lengths, states))


ACTIVATIONS = [
    "Relu",
    "Tanh",
    "Sigmoid",
    "Affine",
    "LeakyRelu",
    "ThresholdedRelu",
    "ScaledTanh",
    "HardSigmoid",
    "Elu",
    "Softsign",
    "Softplus",
]


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_activations_of_recurrent_layers(name):
    """Coefficients are given for the activation that takes them, and go to the first of each."""
    coefficients = {"activation_alpha": [0.3], "activation_beta": [0.7]}
    run_recurrent("RNN", "forward", recurrent_inputs("RNN", 1, True, False, False), activations=[name], **coefficients)
    # ONNX does not say what these have by default
    if name in ("Affine", "ScaledTanh", "ThresholdedRelu"):
        return
    run_recurrent("RNN", "forward", recurrent_inputs("RNN", 1, True, False, False), activations=[name])
    run_recurrent("GRU", "forward", recurrent_inputs("GRU", 1, True, False, False), activations=["Sigmoid", name])
    run_recurrent("LSTM", "reverse", recurrent_inputs("LSTM", 1, True, False, True), activations=["Sigmoid", name, "Tanh"])


def test_coefficients_go_to_the_activations_that_take_them():
    names = ["LeakyRelu", "HardSigmoid"]
    inputs = recurrent_inputs("RNN", 2, True, False, True)
    run_recurrent("RNN", "bidirectional", inputs, activations=names, activation_alpha=[0.2, 0.4], activation_beta=[0.6])


@pytest.mark.parametrize("operator", GATES)
def test_clip(operator):
    run_recurrent(operator, "forward", recurrent_inputs(operator, 1, True, False, True), clip=0.4)


@pytest.mark.parametrize("direction", ["forward", "bidirectional"])
@pytest.mark.parametrize("lengths", [False, True])
def test_linear_before_reset(direction, lengths):
    directions = 2 if direction == "bidirectional" else 1
    run_recurrent("GRU", direction, recurrent_inputs("GRU", directions, True, lengths, True), linear_before_reset=1)


@pytest.mark.parametrize("direction", ["forward", "bidirectional"])
@pytest.mark.parametrize("coupled", [0, 1])
def test_peepholes_and_coupled_gates(direction, coupled):
    directions = 2 if direction == "bidirectional" else 1
    inputs = recurrent_inputs("LSTM", directions, True, False, True, peepholes=True)
    run_recurrent("LSTM", direction, inputs, input_forget=coupled)


# --- indexing ----------------------------------------------------------------------------------------------------------------

DATA = RNG.integers(-4, 4, (3, 4, 5)).astype(np.float32)


@pytest.mark.parametrize("axis", [0, 1, -1])
@pytest.mark.parametrize("largest", [0, 1])
@pytest.mark.parametrize("dtype", ["float32", "int64"])
def test_top_k(axis, largest, dtype):
    check("TopK", {"x": DATA.astype(dtype), "k": np.array([3])}, 2, axis=axis, largest=largest)


@pytest.mark.parametrize("operator", ["ArgMax", "ArgMin"])
@pytest.mark.parametrize(("last", "keepdims", "axis"), [*itertools.product([0, 1], [0, 1], [0, -1])])
def test_positions_of_extremes(operator, last, keepdims, axis):
    check(operator, {"x": DATA}, axis=axis, keepdims=keepdims, select_last_index=last)


@pytest.mark.parametrize("reduction", ["none", "add", "mul", "max", "min"])
def test_scatter(reduction):
    places = np.array([[[0, 1], [2, 3]], [[-1, 0], [1, -2]]])
    updates = RNG.normal(size=places.shape).astype(np.float32)
    check("ScatterElements", {"x": DATA, "i": places, "u": updates}, axis=1, reduction=reduction)
    tuples = np.array([[0, 1], [2, -1], [1, 0]])
    slices = RNG.normal(size=(3, 5)).astype(np.float32)
    check("ScatterND", {"x": DATA, "i": tuples, "u": slices}, reduction=reduction)


@pytest.mark.parametrize("axis", [None, 0, 2])
@pytest.mark.parametrize("in_order", [0, 1])
def test_unique(axis, in_order):
    attributes = {} if axis is None else {"axis": axis}
    check("Unique", {"x": DATA}, 4, sorted=in_order, **attributes)


@pytest.mark.parametrize("axis", [None, 0, 1])
def test_compress(axis):
    attributes = {} if axis is None else {"axis": axis}
    check("Compress", {"x": DATA, "c": np.array([True, False, True])}, **attributes)


@pytest.mark.parametrize("fmod", [0, 1])
@pytest.mark.parametrize("dtype", ["int32", "uint8", "float32"])
def test_mod(fmod, dtype):
    if dtype == "float32" and not fmod:
        pytest.skip("onnxruntime has no such remainder of floats")
    x = np.array([7, -7, 7, -7, 100, 0]).astype(dtype)
    y = np.array([3, 3, -3, -3, 7, 5]).astype(dtype)
    check("Mod", {"x": x, "y": y}, fmod=fmod)


@pytest.mark.parametrize(
    ("mode", "padding", "align"),
    [*itertools.product(("bilinear", "nearest", "bicubic"), ("zeros", "border", "reflection"), (0, 1))],
)
def test_grid_sample(mode, padding, align):
    grid = RNG.uniform(-1.6, 1.6, (1, 4, 3, 2)).astype(np.float32)
    check("GridSample", {"x": IMAGE, "grid": grid}, mode=mode, padding_mode=padding, align_corners=align, tolerance=1e-4)


@pytest.mark.parametrize("mode", ["avg", "max"])
@pytest.mark.parametrize("half", ["half_pixel", "output_half_pixel"])
@pytest.mark.parametrize("ratio", [0, 1, 3])
def test_roi_align(mode, half, ratio):
    rois = np.array([[0.2, 0.7, 4.1, 3.9], [-3.0, 1.0, 9.5, 2.0], [1.0, 1.0, 1.5, 4.9]], np.float32)
    image = np.concatenate([IMAGE, IMAGE[:, ::-1] * 2])
    attributes = {"mode": mode, "coordinate_transformation_mode": half, "sampling_ratio": ratio, "spatial_scale": 0.9}
    inputs = {"x": image, "rois": rois, "batch": np.array([1, 0, 1])}
    check("RoiAlign", inputs, output_height=2, output_width=3, **attributes)
