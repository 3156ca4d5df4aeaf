"""The examples do what they say, on small inputs; the networks have the sizes of the originals."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import autograd_tour
import convolution_arithmetic
import edge_detector
import mnist
import numpy as np
import pytest
from convolution_arithmetic import FIGURES, Figure
from models import MODELS

import irconv
from irconv import optim
from irconv.cost import graph_cost
from irconv.interpret import evaluate
from irconv.verify import verify

EXAMPLES = Path(__file__).parents[1] / "examples"
SLOW = {"resnet152": pytest.mark.slow, "resnet50": pytest.mark.slow}
NAMES = [pytest.param(name, marks=SLOW.get(name, ())) for name in MODELS]


def arrays(shapes: tuple[tuple[int, ...], ...]) -> list[np.ndarray]:
    generator = np.random.default_rng(0)
    return [generator.standard_normal(shape).astype(np.float32) for shape in shapes]


# --- networks ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
def test_networks_trace_print_differentiate_and_run(name):
    example = MODELS[name]
    model, inputs = example.small(), arrays(example.small_inputs)
    graph = irconv.trace(model, *inputs)
    verify(graph)
    assert str(irconv.parse(str(graph))) == str(graph)
    joint = irconv.differentiate(graph)
    verify(joint)
    assert {f"d_{path}" for path, _ in model.named_parameters()} <= set(joint.outputs)
    result = irconv.compile(model, *inputs)(*inputs)
    expected = evaluate(graph, dict(zip(graph.inputs, inputs, strict=True)))[graph.outputs[""]]
    assert result.shape == expected.shape
    assert np.isfinite(result).all()
    np.testing.assert_allclose(result, expected, rtol=1e-3, atol=1e-4 * np.abs(expected).max())


@pytest.mark.parametrize("name", NAMES)
def test_networks_train(name):
    example = MODELS[name]
    model, inputs = example.small(), arrays(example.small_inputs)
    target = np.zeros(irconv.compile(model)(*inputs).shape, np.float32)
    before = {path: array.copy() for path, array in model.state_dict().items()}
    step = irconv.compile_step(model, lambda y, t: ((y - t) ** 2).mean(), optim.SGD(model.parameters(), lr=1e-3))
    losses = [float(step(*inputs, target)) for _ in range(3)]
    assert np.isfinite(losses).all()
    after = model.state_dict()
    changed = [not np.array_equal(before[path], after[path]) for path, _ in model.named_parameters()]
    assert np.mean(changed) > 0.7  # deep ReLU networks at random weights have gradients too small to show


# torchvision's numbers
COUNTS = {"resnet18": 11_689_512, "resnet34": 21_797_672, "mobilenet_v2": 3_504_872, "lenet": 61_706}
LARGE_COUNTS = {"resnet50": 25_557_032, "resnet152": 60_192_808}
ALL_COUNTS = [*COUNTS.items(), *(pytest.param(*item, marks=pytest.mark.slow) for item in LARGE_COUNTS.items())]


@pytest.mark.parametrize(("name", "count"), ALL_COUNTS)
def test_networks_have_the_original_number_of_parameters(name, count):
    assert sum(p.size for p in MODELS[name].make().parameters()) == count


def test_full_size_networks_trace():
    for name, macs in (("resnet18", 1.814e9), ("mobilenet_v2", 0.3008e9)):
        example = MODELS[name]
        graph = irconv.trace(example.make(), *(irconv.TensorSpec(shape) for shape in example.inputs))
        assert graph_cost(graph).macs == pytest.approx(macs, rel=1e-3)


# --- digits ------------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def digits() -> mnist.Digits:
    try:
        return mnist.load()
    except mnist.DataError as error:
        pytest.skip(f"the digits cannot be had here: {error}")


def test_digits_are_split_evenly(digits):
    training, held_out = mnist.split(digits)
    assert (len(training), len(held_out)) == (4000, 1000)
    assert np.bincount(held_out.labels).tolist() == [100] * 10
    assert digits.images.dtype == np.float32
    assert (digits.images.min(), digits.images.max()) == (0, 1)
    again = mnist.split(digits)[1]
    np.testing.assert_array_equal(again.images, held_out.images)


def test_shifting_moves_each_image_by_whole_pixels():
    images = np.zeros((50, 1, 9, 9), np.float32)
    images[:, :, 4, 4] = 1
    moved = mnist.shifted(images, np.random.default_rng(0), most=2)
    places = np.argwhere(moved[:, 0])
    assert len(places) == 50
    assert np.abs(places[:, 1:] - 4).max() == 2


def test_lenet_trains_saves_and_draws(digits, tmp_path):
    options = ["--limit", "200", "--epochs", "2", "--seeds", "2", "--output", tmp_path / "out"]
    command = [sys.executable, EXAMPLES / "lenet.py", *options]
    run = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
    assert run.returncode == 0, run.stdout + run.stderr
    assert "worst of 2 seeds" in run.stdout
    assert "they give the same answers" in run.stdout
    assert (tmp_path / "out" / "lenet.safetensors").stat().st_size > 4 * 61_706
    assert irconv.load(tmp_path / "out" / "lenet.ir").outputs["d_conv1.weight"]
    if "no pictures" not in run.stdout:
        for picture in ("loss.png", "predictions.png"):
            assert (tmp_path / "out" / picture).read_bytes().startswith(b"\x89PNG")


# --- the others --------------------------------------------------------------------------------------------------------------


def test_edge_detector_learns_its_kernel(capsys):
    losses, kernel = edge_detector.learn()
    np.testing.assert_allclose(losses[1::2], [7.789, 1.352, 0.245, 0.049, 0.011], atol=6e-4)
    np.testing.assert_allclose(kernel, [0.9782, -0.9931], atol=1e-4)
    edge_detector.main()
    assert "[ 0  1  0  0  0 -1  0]" in capsys.readouterr().out


def test_autograd_tour(capsys):
    assert autograd_tour.recorded_expression().tolist() == [[-1.5, 0.0], [1.5, 3.0]]
    np.testing.assert_allclose(autograd_tour.control_flow().numpy(), [102.4, 1024, 0.1024], rtol=1e-6)
    w, x = autograd_tour.accumulation()
    assert (w.tolist(), x.tolist()) == ([8, 10, 12], [2, 4, 6])
    assert autograd_tour.custom_function().tolist() == [0, 1, 0]
    assert autograd_tour.second_derivative() < 1e-7
    assert "d_weight" in autograd_tour.backward_graph().outputs
    assert "doubled 9 more times" in capsys.readouterr().out


SIZES = [2, 6, 5, 7, 2, 3, 3, 3, 4, 5, 5, 5, 5, 5, 6]


@pytest.mark.parametrize(
    ("figure", "size"), list(zip(FIGURES, SIZES, strict=True)), ids=lambda v: getattr(v, "name", "")
)
def test_figures_have_the_right_size_and_every_window_fits(figure, size):
    assert convolution_arithmetic.output_size(figure) == size
    last = convolution_arithmetic.cells(figure, size - 1, size - 1)
    window = np.isin(last, [convolution_arithmetic.WINDOW, convolution_arithmetic.ZERO])
    assert window.sum() == figure.kernel**2
    left_over = len(last) - 1 - np.argwhere(window).max()
    assert 0 <= left_over < figure.step


def test_a_figure_as_text():
    drawn = convolution_arithmetic.draw(Figure("", 3, 2, stride=2, padding=1), 0, 1)
    assert drawn.splitlines() == [
        "  . . + + .",
        "  . o # # .   o #",
        "  . o o o .   o o",
        "  . o o o .",
        "  . . . . .",
    ]


def test_figures_print_and_are_drawn(tmp_path):
    pytest.importorskip("matplotlib")
    command = [sys.executable, EXAMPLES / "convolution_arithmetic.py", "--output", tmp_path]
    run = subprocess.run(command, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    assert "padding 1, stride 2: 5x5 input, 3x3 kernel, 3x3 output" in run.stdout
    assert len(list(tmp_path.glob("*.png"))) == len(FIGURES)
