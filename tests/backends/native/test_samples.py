"""Every op sample, compiled as a program of the native backend, against the op's reference.

All samples of an op go into one graph, so that their units are compiled side by side.  The ops without generated code are
written down: a new op without a kernel fails here.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import pytest

import irconv
from irconv.backends.codegen.machine import MACHINES, Machine, this_machine
from irconv.backends.native.backend import NativeBackend
from irconv.builder import Builder
from irconv.graph import Graph
from irconv.op import OPS, Fusion
from irconv.types import type_of
from tests.backends.handwritten import compiler_or_skip
from tests.backends.native.elements import RUNNABLE
from tests.samples import Sample
from tests.samples.table import all_samples

SAMPLES: dict[str, list[Sample]] = {}
for _sample in all_samples():
    SAMPLES.setdefault(_sample.op, []).append(_sample)

NO_CODE = {
    "scatter": "indices of whole slices, which may collide in several ways; networks for images have none on a hot path",
    "top_k": "sorts; it ends a network, on a few numbers",
}
"""Ops whose kernels are always those of the array backends, and why."""

INTEGERS = (1, "one sample has integers, which no network contracts")
PARTLY: dict[str, tuple[int, str]] = {
    "matmul": (2, "one sample has integers, one sums nothing"),
    "conv": INTEGERS,
    "conv_transpose": INTEGERS,
    "im2col": INTEGERS,
    "col2im": INTEGERS,
    "pad": (1, "the mean of integers is rounded"),
}
"""Ops with code for most cases beside float16: how many samples have none, and why."""

BOUND = 64
"""Rounding errors of the result's type, relative to the number and to the largest number of the result."""

OTHERS = [name for name in ("avx2", "generic") if name in RUNNABLE and name != this_machine().name]


@pytest.fixture(autouse=True)
def _with_compiler():
    compiler_or_skip()


@dataclass(frozen=True)
class Case:
    """A sample with its operands in the type asked for, and what the reference makes of them."""

    sample: Sample
    operands: tuple[np.ndarray, ...]
    wanted: np.ndarray


def cases(op: str, dtype: str) -> list[Case]:
    """The samples with float64 operands in another type; for float64 all samples as they are."""
    found = []
    for sample in SAMPLES[op]:
        wide = any(x.dtype == np.float64 for x in sample.operands)
        if dtype == "float64" or wide:
            operands = tuple(x.astype(dtype) if x.dtype == np.float64 else x for x in sample.operands)
            with np.errstate(all="ignore"):
                wanted = np.asarray(OPS[op].reference(sample.attributes, *operands))
            found.append(Case(sample, operands, wanted))
    return found


def run(op: str, chosen: list[Case], machine: Machine) -> list[str]:
    """Compile and run all cases at once and compare; returns kinds of the kernels that have no generated code."""
    graph = Graph(op)
    builder = Builder(graph)
    arrays = {}
    for number, case in enumerate(chosen):
        values = []
        for slot, x in enumerate(case.operands):
            name = f"x{number}_{slot}"
            arrays[name] = x
            values.append(builder.input(name, type_of(x)))
        graph.set_output(f"y{number}", graph.add(OPS[op], case.sample.attributes, [v.id for v in values]).id)
    program = irconv.compile(graph, backend=NativeBackend(machine=machine))
    found = program(**arrays)
    exe = program.executable
    for number, case in enumerate(chosen):
        compare(case.sample.id, found[f"y{number}"], case.wanted)
    coded = exe.sources.keys()
    return [kernel.kind for kernel in exe.kernels if not kernel.is_view and kernel.name not in coded]


def compare(name: str, found: np.ndarray, wanted: np.ndarray) -> None:
    assert (found.dtype, found.shape) == (wanted.dtype, wanted.shape), name
    if wanted.dtype.kind != "f":
        np.testing.assert_array_equal(found, wanted, err_msg=name)
        return
    bound = BOUND * float(np.finfo(wanted.dtype).eps)
    largest = np.max(np.abs(wanted[np.isfinite(wanted)]), initial=0.0)
    np.testing.assert_allclose(found, wanted, rtol=bound, atol=bound * float(largest), err_msg=name)


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("op", SAMPLES)
def test_samples(op: str, dtype: str) -> None:
    chosen = cases(op, dtype)
    if not chosen:
        pytest.skip(f"no sample of {op} has floats")
    fallen = run(op, chosen, this_machine())
    assert fallen.count(op) == len(fallen), "what an op turns into has code"
    narrow = sum(any(x.dtype == np.float16 for x in (*case.operands, case.wanted)) for case in chosen)
    if op in NO_CODE:
        assert fallen, f"{op} has generated code now: take it off the list"
    else:
        allowed, _ = PARTLY.get(op, (0, ""))
        assert len(fallen) <= narrow + allowed, f"{op} has samples without generated code: write it, or say in PARTLY why not"


@pytest.mark.parametrize("machine", OTHERS)
@pytest.mark.parametrize("op", [op for op in SAMPLES if op not in NO_CODE])
def test_samples_on_other_machines(op: str, machine: str) -> None:
    """A few samples of each op, hardly optimised: it is the generated text that differs."""
    quick = replace(MACHINES[machine], flags=(*MACHINES[machine].flags, "-O1"))
    chosen = cases(op, "float32") or cases(op, "float64")
    some = chosen[:: max(1, len(chosen) // 3)]
    run(op, some, quick)


def test_every_op_is_accounted_for() -> None:
    computed = {name for name, op in OPS.items() if op.fusion is not Fusion.LEAF}
    assert computed - SAMPLES.keys() <= {"attach_gradient"}  # the same code as a copy
    assert NO_CODE.keys() | PARTLY.keys() <= computed
    assert not NO_CODE.keys() & PARTLY.keys()
