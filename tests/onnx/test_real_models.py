"""Trained networks that others made, on real input: the same numbers as onnxruntime's."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("onnx", reason="needs the onnx package: pip install 'irconv[onnx]'")
pytest.importorskip("PIL", reason="needs Pillow, which reads the photographs")

import onnx
from PIL import Image

import irconv
from irconv.frontends.onnx import load_model
from tests.backends.handwritten import compiler_or_skip
from tests.counting import steps
from tests.onnx.real_models import path_of

TOLERANCE = 1e-4
"""Of the largest value."""

STEPS = 2000
"""Lines of Python that reading and tracing may take for each node and weight of a file; the networks here take 600 to 930."""


def photograph(name: str, size: tuple[int, int], box: tuple[int, int, int, int] | None = None) -> np.ndarray:
    """A photograph (or a part of it) in another size (width, height), float32 [H,W,3] from -1 to 1."""
    image = Image.open(path_of(name)).convert("RGB").resize(size, Image.Resampling.BICUBIC, box)
    return np.asarray(image, np.float32) / 127.5 - 1


def channels_first(*images: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(np.stack(images).transpose(0, 3, 1, 2))


def faces(size: int) -> np.ndarray:
    """The astronaut's face and two other squares of the photograph [3,W,H,3]."""
    boxes = ((168, 62, 280, 174), (184, 70, 264, 150), (300, 300, 420, 420))
    return np.stack([photograph("astronaut", (size, size), box).transpose(1, 0, 2) for box in boxes])


def text_line(width: int) -> np.ndarray:
    """A line of the page, and the same line upside down [2,3,48,width]."""
    line = photograph("page", (width, 48), (0, 44, 384, 66))
    return channels_first(line, line[::-1, ::-1])


def speech(samples: int = 144_160, rate: int = 16_000) -> np.ndarray:
    """Something like speech: a voice of gliding pitch through moving formants, syllables with pauses, a little noise [samples]."""
    generator = np.random.default_rng(0)
    t = np.arange(samples) / rate
    pitch = 120 + 20 * np.sin(2 * np.pi * 0.4 * t) + 8 * np.sin(2 * np.pi * 2.3 * t)
    phase = 2 * np.pi * np.cumsum(pitch) / rate
    formants = ((700, 1220, 2600), (300, 2300, 3000), (450, 800, 2500))  # as in "a", "i" and "o"
    vowel = np.floor(t * 3.7).astype(int) % len(formants)
    sound = np.zeros(samples)
    for harmonic in range(1, 30):
        frequency = harmonic * pitch
        for peak in np.array(formants)[vowel].T:
            sound += np.sin(harmonic * phase) / (1 + ((frequency - peak) / 120) ** 2) / harmonic**0.3
    loudness = np.clip(np.sin(2 * np.pi * 3.7 * t) + 0.3, 0, 1) * (np.sin(2 * np.pi * 0.3 * t) > -0.6)
    sound = sound * loudness / np.abs(sound).max() * 0.3 + 0.002 * generator.standard_normal(samples)
    return sound.astype(np.float32)


def spectrogram(sound: np.ndarray) -> np.ndarray:
    """Logarithms of 120 mel-like bands in 900 frames, scaled as the network was trained [900,120]."""
    frames = np.lib.stride_tricks.sliding_window_view(np.pad(sound, 160), 320)[::160][:900] * np.hanning(320)
    power = np.abs(np.fft.rfft(frames, axis=1)) ** 2
    edges = 700 * (np.exp(np.linspace(0, np.log(1 + 8000 / 700), 122)) - 1) / 50
    bins = np.arange(power.shape[1])
    low, middle, high = edges[:-2, None], edges[1:-1, None], edges[2:, None]
    bands = np.maximum(np.minimum((bins - low) / (middle - low), (high - bins) / (high - middle)), 1e-6)
    decibels = 10 * np.log10(power @ bands.T + 1e-10)
    return ((np.maximum(decibels, decibels.max() - 80) - decibels.max() + 40) / 40).astype(np.float32)


INPUTS: dict[str, Callable[[], np.ndarray]] = {
    "pnet": lambda: photograph("astronaut", (160, 160)).transpose(1, 0, 2)[None],
    "rnet": lambda: faces(24),
    "onet": lambda: faces(48),
    "text_detection": lambda: channels_first(photograph("page", (384, 192))),
    "text_direction": lambda: text_line(192),
    "text_recognition": lambda: text_line(320),
    "speech_quality": lambda: np.stack([speech(), speech()[::-1] * 0.1]),
    "speech_opinion": lambda: spectrogram(speech())[None],
}
"""Photographs, printed text and sound, as each network wants them."""

NAMES = list(INPUTS)


def relative_error(given: np.ndarray, expected: np.ndarray) -> float:
    return float(np.abs(given - expected).max() / np.abs(expected).max())


@pytest.mark.parametrize("backend", ["numpy", "native"])
@pytest.mark.parametrize("name", NAMES)
def test_a_real_network_gives_the_numbers_of_onnxruntime(name, backend):
    if backend == "native":
        compiler_or_skip()
    onnxruntime = pytest.importorskip("onnxruntime", reason="needs onnxruntime to compare with")
    path = path_of(name)
    x = np.ascontiguousarray(INPUTS[name]())
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    expected = session.run(None, {session.get_inputs()[0].name: x})
    program = irconv.compile(str(path), x, backend=backend)
    given = program(x)
    results = given if isinstance(given, tuple) else (given,)
    assert len(results) == len(expected)
    for result, wanted in zip(results, expected, strict=True):
        assert result.shape == wanted.shape
        assert relative_error(result, wanted) < TOLERANCE
    assert list(program.stages[0].graph.outputs) == ([""] if len(expected) == 1 else [str(i) for i in range(len(expected))])


def test_a_network_says_what_it_should_about_real_input():
    results = [irconv.compile(path_of(name))(np.ascontiguousarray(INPUTS[name]())) for name in ("onet", "text_direction")]
    is_face = results[0][2][:, 1]
    assert is_face[1] > 0.95
    assert is_face[2] < 0.1
    upright, turned = results[1]
    assert upright.argmax() == 0
    assert turned.argmax() == 1


def parts(path: Path | str) -> int:
    """Nodes and weights in a file."""
    stored = onnx.load(path).graph
    return len(stored.node) + len(stored.initializer)


@pytest.mark.parametrize("name", NAMES)
def test_importing_takes_little_work(name):
    path = path_of(name)
    x = irconv.TensorSpec(INPUTS[name]().shape)
    irconv.trace(load_model(path), x)  # the first in a process fills caches
    assert steps(lambda: irconv.trace(load_model(path), x)) < STEPS * parts(path)


def in_float64(path) -> bytes:
    """A network of float32 as one of float64."""
    model = onnx.load(path)
    for tensor in model.graph.initializer:
        if tensor.data_type == onnx.TensorProto.FLOAT:
            tensor.CopyFrom(onnx.numpy_helper.from_array(onnx.numpy_helper.to_array(tensor).astype(np.float64), tensor.name))
    for port in (*model.graph.input, *model.graph.output):
        port.type.tensor_type.elem_type = onnx.TensorProto.DOUBLE
    return model.SerializeToString()


@pytest.mark.parametrize("name", ["pnet", "rnet", "onet"])
def test_the_gradient_of_a_real_network_is_that_of_its_loss(name):
    """Along a direction, the loss changes as the gradient with respect to the image says."""
    model = load_model(in_float64(path_of(name)))
    x = INPUTS[name]().astype(np.float64)[:, :48, :48]
    generator = np.random.default_rng(0)
    x += 1e-3 * generator.standard_normal(x.shape)  # a black helmet has many equal maxima

    def loss(x):
        return sum((each * each).sum() for each in model(x))

    direction = generator.standard_normal(x.shape)
    gradient = irconv.compile(irconv.grad(loss))(x)
    program, step = irconv.compile(loss), 1e-7
    change = (float(program(x + step * direction)) - float(program(x - step * direction))) / (2 * step)
    assert float((gradient * direction).sum()) == pytest.approx(change, rel=1e-5)


# --- a network of 50 layers ----------------------------------------------------------------------------------------------------


def resnet50(path: str) -> None:
    """ResNet-50 (He et al. 2015) with random weights, as an ONNX file."""
    helper, generator = onnx.helper, np.random.default_rng(0)
    nodes, stored = [], []

    def weight(name: str, *shape: int) -> str:
        scale = np.sqrt(2 / np.prod(shape[1:])) if len(shape) > 1 else 1
        stored.append(onnx.numpy_helper.from_array((generator.standard_normal(shape) * scale).astype(np.float32), name))
        return name

    def node(operator: str, inputs: list[str], name: str, **attributes) -> str:
        nodes.append(helper.make_node(operator, inputs, [name], name=name, **attributes))
        return name

    def layer(x: str, name: str, wide: int, out: int, size: int, stride: int = 1) -> str:
        padding = [size // 2] * 4
        kernel = weight(f"{name}.weight", out, wide, size, size)
        y = node("Conv", [x, kernel], f"{name}.conv", strides=[stride] * 2, pads=padding, kernel_shape=[size] * 2)
        for part in ("scale", "offset", "mean"):
            weight(f"{name}.{part}", out)
        stored.append(onnx.numpy_helper.from_array(np.ones(out, np.float32), f"{name}.variance"))
        parts = [f"{name}.{part}" for part in ("scale", "offset", "mean", "variance")]
        return node("BatchNormalization", [y, *parts], f"{name}.norm")

    x = node("Relu", [layer("image", "stem", 3, 64, 7, 2)], "stem.relu")
    x, wide = node("MaxPool", [x], "stem.pool", kernel_shape=[3, 3], strides=[2, 2], pads=[1] * 4), 64
    for stage, (width, blocks) in enumerate(((64, 3), (128, 4), (256, 6), (512, 3))):
        for block in range(blocks):
            name, stride = f"stage{stage}.{block}", 2 if stage and not block else 1
            y = node("Relu", [layer(x, f"{name}.a", wide, width, 1)], f"{name}.a.relu")
            y = node("Relu", [layer(y, f"{name}.b", width, width, 3, stride)], f"{name}.b.relu")
            y = layer(y, f"{name}.c", width, 4 * width, 1)
            shortcut = x if block else layer(x, f"{name}.shortcut", wide, 4 * width, 1, stride)
            x, wide = node("Relu", [node("Add", [y, shortcut], f"{name}.sum")], f"{name}.relu"), 4 * width
    x = node("Flatten", [node("GlobalAveragePool", [x], "pooled")], "features")
    node("Gemm", [x, weight("head.weight", 1000, wide), weight("head.bias", 1000)], "scores", transB=1)
    image = helper.make_tensor_value_info("image", onnx.TensorProto.FLOAT, ["batch", 3, 224, 224])
    scores = helper.make_tensor_value_info("scores", onnx.TensorProto.FLOAT, ["batch", 1000])
    graph = helper.make_graph(nodes, "resnet50", [image], [scores], stored)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)


@pytest.mark.slow
def test_a_network_of_fifty_layers_is_imported_with_little_work(tmp_path):
    path, x = str(tmp_path / "resnet50.onnx"), irconv.TensorSpec((1, 3, 224, 224))
    resnet50(path)
    model = load_model(path)
    graph = irconv.trace(model, x)
    assert sum(p.size for p in model.parameters()) == 25_557_032
    assert sum(node.op.name == "conv" for node in graph) == 53
    assert steps(lambda: irconv.trace(load_model(path), x)) < STEPS * parts(path)
