"""Programs of many small kernels, each array in memory of exactly its size, compiled with sanitizers and run without Python."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

import irconv
import irconv.nn.functional as F
from irconv import structure
from irconv.backends.native.standalone.blueprint import Blueprint
from irconv.backends.native.standalone.writer import compile_files, write
from irconv.standalone import standalone_blueprint

FLAGS = ("-O0", "-g1", "-fsanitize=address,undefined", "-fno-sanitize-recover=all", "-fno-omit-frame-pointer")


@dataclass(frozen=True)
class Case:
    """A function of arrays of these shapes."""

    name: str
    function: Callable[..., Any]
    shapes: tuple[tuple[int, ...], ...]


def case(name: str, function: Callable[..., Any], *shapes: tuple[int, ...]) -> Case:
    return Case(name, function, shapes)


CONVOLUTIONS = (
    case("pixel", lambda x, w: F.conv2d(x, w, padding=1), (1, 17, 1, 1), (5, 17, 3, 3)),
    case("one_channel", lambda x, w, b: F.conv2d(x, w, b).relu(), (2, 1, 7, 5), (1, 1, 3, 3), (1,)),
    case("primes", lambda x, w, b: F.conv2d(x, w, b, stride=2, padding=1).relu(), (1, 17, 11, 7), (13, 17, 3, 3), (13,)),
    case("long_stride", lambda x, w: F.conv2d(x, w, stride=5), (1, 3, 13, 11), (17, 3, 2, 2)),
    case("dilated", lambda x, w: F.conv2d(x, w, dilation=3, padding=2), (1, 5, 13, 11), (7, 5, 3, 3)),
    case("grouped", lambda x, w: F.conv2d(x, w, groups=2, padding=1), (1, 34, 5, 3), (34, 17, 3, 3)),
    case("depthwise", lambda x, w, b: F.conv2d(x, w, b, groups=17, padding=1).relu(), (2, 17, 7, 5), (17, 1, 3, 3), (17,)),
    case("depthwise_stride", lambda x, w: F.conv2d(x, w, groups=19, stride=3, padding=2), (1, 19, 7, 7), (19, 1, 5, 5)),
    case("depthwise_pixel", lambda x, w: F.conv2d(x, w, groups=33, padding=1), (1, 33, 1, 1), (33, 1, 3, 3)),
    case("pointwise", lambda x, w, r: F.conv2d(x, w) + r, (1, 17, 7, 3), (19, 17, 1, 1), (1, 19, 7, 3)),
    case("first_layer", lambda x, w: F.conv2d(x, w, stride=2, padding=3), (1, 3, 17, 19), (17, 3, 7, 7)),
    case("tiles", lambda x, w, b: F.conv2d(x, w, b, padding=1).relu(), (1, 32, 29, 31), (33, 32, 3, 3), (33,)),
    case("empty_batch", lambda x, w: F.conv2d(x, w, padding=1), (0, 5, 7, 7), (3, 5, 3, 3)),
    case("line", lambda x, w: F.conv1d(x, w, padding=2), (2, 3, 23), (17, 3, 5)),
    case("volume", lambda x, w: F.conv3d(x, w, padding=1), (1, 3, 5, 3, 7), (5, 3, 3, 3, 3)),
    case("transposed", lambda x, w: F.conv_transpose2d(x, w, stride=2, padding=1), (1, 17, 5, 3), (17, 7, 3, 3)),
    case("few_columns", lambda x, w, b: (F.conv2d(x, w, padding=2) + b).relu(), (3, 2, 13, 37), (6, 2, 5, 5), (6, 1, 1)),
    case("few_columns_transposed", lambda x, w: F.conv_transpose2d(x, w), (2, 17, 9, 19), (17, 3, 3, 5)),
    case("short_rows", lambda x, w, b: (F.conv2d(x, w, padding=2) + b).relu(), (3, 5, 7, 9), (6, 5, 5, 5), (6, 1, 1)),
    case("short_rows_transposed", lambda x, w: F.conv_transpose2d(x, w), (2, 17, 5, 7), (17, 6, 5, 5)),
    case("long_rows_transposed", lambda x, w: F.conv_transpose2d(x, w, padding=1), (1, 5, 3, 61), (5, 6, 3, 5)),
    case("transposed_far", lambda x, w: F.conv_transpose2d(x, w, stride=3), (1, 5, 3, 3), (5, 17, 2, 2)),
)


def _inverted_residual(x: Any, a: Any, b: Any, c: Any, bias: Any, stride: int) -> Any:
    """What becomes one kernel of three layers, where images are large enough."""
    y = F.relu6(F.conv2d(x.tanh(), a) + bias)
    return F.conv2d(F.relu6(F.conv2d(y, b, stride=stride, padding=1, groups=17)), c)


_LAYERS = ((17, 5, 1, 1), (17, 1, 3, 3), (7, 17, 1, 1), (17, 1, 1))
FUSED_LAYERS = (
    case("layers", lambda *all: _inverted_residual(*all, 1), (1, 5, 13, 11), *_LAYERS),
    case("layers_stride", lambda *all: _inverted_residual(*all, 2), (2, 5, 17, 19), *_LAYERS),
)

def _twice_read(after: Callable[..., Any]) -> Callable[..., Any]:
    """What comes after a convolution's result that is read elsewhere too, so that it is stored."""

    def program(x: Any, v: Any, *rest: Any) -> Any:
        y = F.conv2d(x, v)
        return after((y + 0.5).relu(), *rest) + y.mean()

    return program


PROLOGUES = (
    case("ahead_pixels", _twice_read(lambda y, w: F.conv2d(y, w, stride=2)), (3, 3, 7, 5), (17, 3, 1, 1), (19, 17, 1, 1)),
    case("ahead_tiles", _twice_read(lambda y, w: F.conv2d(y, w, padding=1)), (2, 3, 13, 15), (17, 3, 1, 1), (33, 17, 3, 3)),
    case("ahead_image", lambda x, w: F.conv2d((x + 0.5).relu(), w, padding=2, stride=2), (2, 3, 17, 19), (17, 3, 5, 5)),
    case("ahead_planes", lambda x, w: F.conv2d((x + 0.5).relu(), w, padding=2), (3, 2, 13, 37), (3, 2, 5, 5)),
    case("ahead_volume", lambda x, w: F.conv3d((x + 0.5).relu(), w, padding=1), (1, 3, 5, 3, 7), (5, 3, 3, 3, 3)),
    case("ahead_rows", lambda x, m, w: (x * m) @ w, (7, 33), (7, 33), (33, 19)),
    case("ahead_pool", _twice_read(lambda y: F.max_pool2d(y, 3, 2, 1)), (2, 3, 11, 7), (19, 3, 1, 1)),
)

POOLS = (
    case("max", lambda x: F.max_pool2d(x, 2), (2, 17, 7, 5)),
    case("max_padded", lambda x: F.max_pool2d(x, 3, 2, 1), (1, 19, 11, 7)),
    case("max_pixel", lambda x: F.max_pool2d(x, 3, 1, 1), (1, 1, 1, 1)),
    case("max_long_stride", lambda x: F.max_pool2d(x, 2, 5), (1, 3, 13, 11)),
    case("max_dilated", lambda x: F.max_pool2d(x, 3, 1, 1, 2), (1, 17, 7, 7)),
    case("average", lambda x: F.avg_pool2d(x, 3, 2, 1), (1, 17, 11, 7)),
    case("average_line", lambda x: F.avg_pool1d(x, 2), (3, 5, 13)),
    case("global", lambda x: x.mean((2, 3)), (2, 17, 7, 5)),
    case("none", lambda x: F.max_pool2d(x, 2), (0, 17, 4, 4)),
    case("after_few_columns", lambda x, w: F.max_pool2d(F.conv2d(x, w, padding=2), 2), (3, 1, 13, 37), (6, 1, 5, 5)),
    case("after_few_columns_odd", lambda x, w: F.avg_pool2d(F.conv2d(x, w).relu(), (1, 3)), (2, 2, 7, 21), (5, 2, 3, 3)),
    case("after_tiles", lambda x, w: F.max_pool2d(F.conv2d(x, w, padding=1), 2), (1, 32, 29, 31), (33, 32, 3, 3)),
    case("after_images", lambda x, w: F.max_pool2d(F.conv2d(x, w), 2), (5, 6, 14, 14), (17, 6, 5, 5)),
    case("after_line", lambda x, w: F.max_pool1d(F.conv1d(x, w, padding=2), 3), (2, 3, 23), (17, 3, 5)),
    case("after_conv", lambda x, w, b: F.max_pool2d(F.conv2d(x, w, b, padding=1).relu(), 2), (1, 3, 9, 7), (17, 3, 3, 3), (17,)),
)

ROWS = (
    case("chain", lambda x, y: (x * y + 1).exp().log() - x.abs(), (17, 13), (13,)),
    case("curves", lambda x: F.gelu(x) + x.tanh() * F.sigmoid(x) - F.softplus(x), (3, 5, 7)),
    case("columns", lambda x, y: x / (1 + y * y), (5, 1, 19), (7, 1)),
    case("chosen", lambda x, y: irconv.where(x > y, x, y * 2), (31,), (1,)),
    case("nothing", lambda x: x * 2 + 1, (0, 5)),
    case("number", lambda x: x.exp() + 1, ()),
    case("images", lambda x, a: x * a.reshape(1, 17, 1, 1) + x, (2, 17, 3, 5), (17,)),
    case("sum", lambda x: x.sum(0), (13, 17)),
    case("sum_rows", lambda x: x.sum(1), (13, 37)),
    case("sum_all", lambda x: (x * x).sum(), (3, 17, 5)),
    case("largest", lambda x: x.max(1), (7, 1, 11)),
    case("position", lambda x: x.argmax(1), (7, 23)),
    case("softmax", lambda x: F.softmax(x, 1), (5, 37)),
    case("log_softmax", lambda x: F.log_softmax(x, 1), (3, 7, 5)),
    case("layer_norm", lambda x, w, b: F.layer_norm(x, (17,), w, b), (5, 17), (17,), (17,)),
    case("batch_statistics", lambda x: (x - x.mean((0, 2, 3), keepdims=True)) * x.var((0, 2, 3), keepdims=True), (3, 17, 5, 3)),
    case("matmul", lambda x, y: x @ y, (17, 13), (13, 7)),
    case("matmul_number", lambda x, y: x @ y, (1, 1), (1, 1)),
    case("matmul_rows", lambda x, y, b: (x @ y.T + b).relu(), (3, 37), (19, 37), (19,)),
    case("matmul_unpacked", lambda x, y, b: (x @ y.T + b).relu(), (3, 1031), (271, 1031), (271,)),
    case("matmul_across", lambda x, y, b: (x @ y + b).relu(), (3, 1031), (1031, 271), (271,)),
    case("matmul_deep", lambda x, y: x @ y.T, (6, 8209), (33, 8209)),
    case("matmul_batch", lambda x, y: x @ y, (3, 5, 7), (3, 7, 11)),
    case("matmul_none", lambda x, y: x @ y, (0, 5), (5, 3)),
    case("moved", lambda x: x.transpose((2, 0, 1)) * 1, (5, 7, 11)),
    case("turned", lambda x: irconv.concatenate([x[:, ::-1], x[:, 1:4]], 1), (3, 17)),
    case("padded", lambda x: F.pad(x, (1, 2, 3, 0)), (1, 3, 5, 7)),
    case("resized", lambda x: F.interpolate(x, scale_factor=2, mode="nearest"), (1, 17, 3, 5)),
)


def forward(cases: Sequence[Case]) -> Callable[..., dict[str, Any]]:
    """All cases as one function; its arguments are theirs one after the other."""

    def program(*arrays: Any) -> dict[str, Any]:
        rest = list(arrays)
        return {each.name: each.function(*(rest.pop(0) for _ in each.shapes)) for each in cases}

    return program


def cubes(cases: Sequence[Case]) -> Callable[..., Any]:
    """A number that depends on every result of the cases: its derivative runs all their backward kernels."""

    def program(*arrays: Any) -> Any:
        parts = [(y * y * (y + 1)).sum() for y in forward(cases)(*arrays).values()]
        total = parts[0]
        for part in parts[1:]:
            total = total + part
        return total

    return program


def arrays_for(cases: Sequence[Case]) -> list[np.ndarray]:
    generator = np.random.default_rng(5)
    shapes = [shape for each in cases for shape in each.shapes]
    return [generator.standard_normal(shape).astype(np.float32) for shape in shapes]


def build_sanitized(
    program: irconv.Compiled | irconv.Step, machine: str, folder: Path, damage: Callable[[str], str] | None = None
) -> tuple[Blueprint, Path]:
    """A program compiled with sanitizers; ``damage`` changes the C file of its tables first."""
    blueprint = standalone_blueprint(program, "checked", machine, apart=True)
    files = write(blueprint, folder, embed=False)
    if damage is not None:
        tables = folder / "checked.c"
        tables.write_text(damage(tables.read_text()))
    return blueprint, compile_files(blueprint, files, FLAGS)[2]


def run_program(program: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run a program in its folder, with two threads."""
    options = {"ASAN_OPTIONS": "detect_leaks=0", "UBSAN_OPTIONS": "print_stacktrace=1"}
    command = [str(program), "-t", "2", *arguments]
    return subprocess.run(
        command, cwd=program.parent, env={**os.environ, **options}, capture_output=True, text=True, timeout=300
    )


def save_arrays(arrays: Sequence[np.ndarray], folder: Path) -> list[str]:
    """Files with the arrays, as arguments of a program."""
    for number, array in enumerate(arrays):
        np.save(folder / f"{number}.npy", array)
    return [f"{number}.npy" for number in range(len(arrays))]


def check_sanitized(graph: irconv.Graph, arrays: Sequence[np.ndarray], machine: str, folder: Path) -> None:
    """Build a graph for a machine with sanitizers, run it on arrays, and compare with NumPy.  Fails on any report."""
    compiled = irconv.compile(graph, backend="numpy")
    blueprint, program = build_sanitized(compiled, machine, folder)
    outputs = [word for number in range(len(blueprint.outputs)) for word in ("-o", f"{number}.out.npy")]
    done = run_program(program, *outputs, *save_arrays(arrays, folder))
    assert done.returncode == 0, (done.stdout[-500:], done.stderr[:6000])
    expected = dict(structure.leaves(compiled(*arrays)))
    assert [argument.path for argument in blueprint.outputs] == list(expected)
    for number, argument in enumerate(blueprint.outputs):
        wanted = np.asarray(expected[argument.path])
        found = np.load(folder / f"{number}.out.npy")
        scale = np.abs(wanted).max(initial=1e-6)
        np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-5 * scale, err_msg=argument.path)
