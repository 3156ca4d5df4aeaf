"""Kernels with odd sizes under the address and undefined-behaviour sanitizers, for each width of vectors."""

from __future__ import annotations

import subprocess

import pytest

import irconv
from irconv.backends.native.compiler import find_compiler
from tests.backends.handwritten import compiler_or_skip
from tests.backends.native.sanitized import CONVOLUTIONS, FLAGS, POOLS, ROWS, arrays_for, forward, run_sanitized, squares

FORWARD = (*CONVOLUTIONS, *POOLS, *ROWS)
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
    run_sanitized(irconv.trace(forward(FORWARD), *arrays), arrays, machine, tmp_path)


@pytest.mark.parametrize("machine", ["avx512", "avx2", "generic"])
def test_backward_kernels_stay_inside_their_arrays(machine, tmp_path):
    arrays = arrays_for(BACKWARD)
    graph = irconv.differentiate(irconv.trace(squares(BACKWARD), *arrays))
    run_sanitized(graph, arrays, machine, tmp_path)
