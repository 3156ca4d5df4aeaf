"""Kernels with odd sizes under the address and undefined-behaviour sanitizers, for each width of vectors."""

from __future__ import annotations

import re
import subprocess

import numpy as np
import pytest

import irconv
import irconv.nn.functional as F
from irconv import nn, optim, random, serialize
from irconv.backends.native.compiler import find_compiler
from irconv.passes import fused_layers
from tests.backends.handwritten import compiler_or_skip
from tests.backends.native.sanitized import (
    CONVOLUTIONS,
    FLAGS,
    FUSED_LAYERS,
    POOLS,
    PROLOGUES,
    ROWS,
    arrays_for,
    build_sanitized,
    check_sanitized,
    cubes,
    forward,
    run_program,
    save_arrays,
)

FORWARD = (*CONVOLUTIONS, *PROLOGUES, *POOLS, *ROWS)
BACKWARD = (*CONVOLUTIONS, *POOLS, *(each for each in ROWS if each.name not in ("position", "nothing", "matmul_none")))


@pytest.fixture(scope="module", autouse=True)
def _sanitizers(tmp_path_factory):
    compiler_or_skip()
    folder = tmp_path_factory.mktemp("probe")
    (folder / "probe.c").write_text("int main(void) { return 0; }\n")
    command = [*find_compiler().command, *FLAGS, "-o", str(folder / "probe"), str(folder / "probe.c")]
    built = subprocess.run(command, capture_output=True, check=False).returncode == 0
    if not built or subprocess.run([str(folder / "probe")], capture_output=True, check=False).returncode != 0:
        pytest.skip("the compiler has no sanitizers")


@pytest.mark.parametrize("machine", ["avx512", "avx2", "generic"])
def test_forward_kernels_stay_inside_their_arrays(machine, tmp_path):
    arrays = arrays_for(FORWARD)
    check_sanitized(irconv.trace(forward(FORWARD), *arrays), arrays, machine, tmp_path)
    sources = [file.read_text() for file in tmp_path.rglob("*.c")]
    assert all(any(name in source for source in sources) for name in ("matmul_rows(", "matmul_columns(", "conv_transpose_taps("))


@pytest.mark.parametrize("machine", ["avx512", "avx2", "generic"])
def test_backward_kernels_stay_inside_their_arrays(machine, tmp_path):
    arrays = arrays_for(BACKWARD)
    graph = irconv.differentiate(irconv.trace(cubes(BACKWARD), *arrays))
    check_sanitized(graph, arrays, machine, tmp_path)
    sources = [file.read_text() for file in tmp_path.rglob("*.c")]
    assert machine == "generic" or any("weight_gradient_taps(" in source for source in sources)


@pytest.mark.parametrize("machine", ["avx512", "avx2", "generic"])
def test_fused_layers_stay_inside_their_arrays(machine, tmp_path, monkeypatch):
    monkeypatch.setattr(fused_layers, "LEAST_BYTES", 1)
    arrays = arrays_for(FUSED_LAYERS)
    check_sanitized(irconv.trace(forward(FUSED_LAYERS), *arrays), arrays, machine, tmp_path)
    assert any("pointwise0(" in file.read_text() for file in tmp_path.rglob("*.c"))


class Odd(nn.Module):
    """A network of odd sizes with everything that training is made of."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(1, 17, 3, stride=2, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(17)
        self.depthwise = nn.Conv2d(17, 17, 3, padding=1, groups=17)
        self.drop = nn.Dropout(0.25)
        self.head = nn.Linear(17, 7)

    def forward(self, x: irconv.Tensor) -> irconv.Tensor:
        y = self.norm(self.first(x)).relu()
        y = F.max_pool2d(self.depthwise(y) + y, 3, 2, 1)
        return self.head(self.drop(y.mean((2, 3))))


@pytest.mark.parametrize("machine", ["avx512", "generic"])
def test_a_training_step_stays_inside_its_arrays(machine, tmp_path):
    random.manual_seed(1)
    model = Odd()
    generator = np.random.default_rng(0)
    x = generator.standard_normal((3, 1, 11, 13)).astype(np.float32)
    target = np.array([0, 6, 3])
    step = irconv.compile_step(model, F.cross_entropy, optim.Adam(model.parameters(), lr=0.01), x, target, backend="numpy")
    _, program = build_sanitized(step, machine, tmp_path)
    assert any("state_updates(" in file.read_text() for file in tmp_path.rglob("*.c"))
    done = run_program(program, "-n", "3", "-s", "states.safetensors", *save_arrays((x, target), tmp_path))
    assert done.returncode == 0, (done.stdout, done.stderr[:6000])
    losses = [float(line.split()[-1]) for line in done.stdout.splitlines()[:3]]
    np.testing.assert_allclose(losses, [float(step(x, target)) for _ in range(3)], rtol=1e-4)
    saved = serialize.load(tmp_path / "states.safetensors")
    for name, array in model.state_dict().items():
        np.testing.assert_allclose(saved[name], array, rtol=1e-3, atol=1e-4, err_msg=name)


def normalised() -> nn.Module:
    """Layers whose kernels take mean, variance and sums of what they write; numbers of channels that fill no vectors."""
    layers = [nn.Conv2d(3, 17, 3, stride=2, padding=1, bias=False), nn.BatchNorm2d(17), nn.ReLU6()]
    layers += [nn.Conv2d(17, 17, 3, stride=2, padding=1, groups=17, bias=False), nn.BatchNorm2d(17), nn.ReLU()]
    layers += [nn.Conv2d(17, 67, 1), nn.BatchNorm2d(67), nn.ReLU(), nn.Conv2d(67, 35, 3, padding=1, bias=False), nn.BatchNorm2d(35)]
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(35 * 5 * 6, 5))


@pytest.mark.parametrize("machine", ["avx512", "generic"])
def test_a_step_with_batch_norm_stays_inside_its_arrays(machine, tmp_path):
    random.manual_seed(1)
    model = normalised()
    x = np.random.default_rng(0).standard_normal((3, 3, 19, 21)).astype(np.float32)
    target = np.array([0, 4, 3])
    step = irconv.compile_step(model, F.cross_entropy, optim.SGD(model.parameters(), lr=0.01), x, target, backend="numpy")
    _, program = build_sanitized(step, machine, tmp_path)
    done = run_program(program, "-n", "2", *save_arrays((x, target), tmp_path))
    assert done.returncode == 0, (done.stdout, done.stderr[:6000])
    losses = [float(line.split()[-1]) for line in done.stdout.splitlines()[:2]]
    np.testing.assert_allclose(losses, [float(step(x, target)) for _ in range(2)], rtol=1e-4)


@pytest.mark.parametrize("machine", ["avx512", "avx2", "generic"])
@pytest.mark.parametrize("value", range(2), ids=["hidden", "result"])
def test_what_reaches_outside_is_found(machine, value, tmp_path):
    """Any array of intermediate values that is one element too short is noticed, in whole vectors and in parts of one."""

    def program(x, w):
        y = F.conv2d(x, w)
        return F.max_pool2d(y, 2) if value else F.max_pool2d(y.tanh() + 1, 2)

    arrays = [np.ones((1, 3, 6, 6), np.float32), np.ones((19, 3, 3, 3), np.float32)]
    compiled = irconv.compile(irconv.trace(program, *arrays), backend="numpy")

    def shorten(text: str) -> str:
        changed, count = re.subn(r"    (\d+), // value", lambda found: f"    {int(found[1]) - 4}, // value", text, count=1)
        assert count == 1
        return changed

    _, program_file = build_sanitized(compiled, machine, tmp_path, shorten)
    done = run_program(program_file, *save_arrays(arrays, tmp_path))
    assert done.returncode != 0
    assert "AddressSanitizer: heap-buffer-overflow" in done.stderr
