"""Every op sample, compiled as a program of the native backend, against the op's reference.

All samples of an op go into one graph, so that their units are compiled side by side.  The samples without generated code are
written down: a new op, or type, without a kernel fails here.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest

import irconv
from irconv.backends.codegen.machine import Machine, this_machine
from irconv.backends.native.backend import NativeBackend
from irconv.builder import Builder
from irconv.graph import Graph
from irconv.op import OPS, Fusion
from irconv.types import type_of
from tests.backends.handwritten import compiler_or_skip
from tests.backends.native.elements import RUNNABLE
from tests.backends.native.machines import TESTED, hardly_optimised
from tests.samples import Sample
from tests.samples.table import all_samples

SAMPLES: dict[str, list[Sample]] = {}
for _sample in all_samples():
    SAMPLES.setdefault(_sample.op, []).append(_sample)

NO_CODE = {
    "power:integers": "a negative exponent is an error, which the array kernel raises before anything is computed",
    "pad:mean, integers": "the mean of integers is rounded to integers axis by axis",
}
"""Samples that array kernels run in a native program, and why: nothing else may."""

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
    """The samples with float64 operands in this type; for float32 also the samples without any, as they are."""
    found = []
    for sample in SAMPLES[op]:
        wide = any(x.dtype == np.float64 for x in sample.operands)
        if dtype == "float32" or wide:
            with np.errstate(all="ignore"):
                operands = tuple(x.astype(dtype) if x.dtype == np.float64 else x for x in sample.operands)
                wanted = np.asarray(OPS[op].reference(sample.attributes, *operands))
            found.append(Case(sample, operands, wanted))
    return found


def run(op: str, chosen: list[Case], machine: Machine) -> set[str]:
    """Compile and run all cases at once and compare; returns the samples of which something has no generated code."""
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
    fallen = {i for k in exe.kernels if not k.is_view and k.name not in coded for i in k.outputs}
    graph = exe.graph
    return {
        case.sample.id
        for number, case in enumerate(chosen)
        if fallen & graph.ancestors([graph.outputs[f"y{number}"]])
    }


def compare(name: str, found: np.ndarray, wanted: np.ndarray) -> None:
    assert (found.dtype, found.shape) == (wanted.dtype, wanted.shape), name
    if wanted.dtype.kind != "f":
        np.testing.assert_array_equal(found, wanted, err_msg=name)
        return
    bound = BOUND * float(np.finfo(wanted.dtype).eps)
    largest = np.max(np.abs(wanted[np.isfinite(wanted)]), initial=0.0)
    np.testing.assert_allclose(found, wanted, rtol=bound, atol=bound * float(largest), err_msg=name)


@pytest.mark.parametrize("dtype", ["float64", "float32", "float16"])
@pytest.mark.parametrize("op", SAMPLES)
def test_samples(op: str, dtype: str) -> None:
    """In float32, and types that are not floats, as users have them; what is generated for other floats, hardly optimised."""
    chosen = cases(op, dtype)
    if not chosen:
        pytest.skip(f"no sample of {op} has floats")
    machine = this_machine()
    fallen = run(op, chosen, machine if dtype == "float32" else hardly_optimised(machine))
    assert fallen == {case.sample.id for case in chosen} & NO_CODE.keys()


@pytest.mark.parametrize("machine", OTHERS)
@pytest.mark.parametrize("op", SAMPLES)
def test_samples_on_other_machines(op: str, machine: str) -> None:
    """A few samples of each op."""
    chosen = cases(op, "float32")
    some = chosen[:: max(1, len(chosen) // 3)]
    run(op, some, TESTED[machine])


def test_every_op_is_accounted_for() -> None:
    computed = {name for name, op in OPS.items() if op.fusion is not Fusion.LEAF}
    assert computed - SAMPLES.keys() <= {"attach_gradient"}  # the same code as a copy
    assert NO_CODE.keys() <= {sample.id for samples in SAMPLES.values() for sample in samples}
