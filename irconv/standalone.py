"""Compiled programs as C libraries that run without Python.

    net = irconv.compile(model, irconv.TensorSpec((1, 3, 224, 224)))
    irconv.build_library(net, "resnet_c", machine="avx2")

writes the network as C with a header, its weights, a Makefile and a small program, and compiles them.  A training step
(:func:`irconv.compile_step`) becomes a function that trains, with all states in the library; one that accumulates gradients
updates the parameters at every so many calls of it.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from pathlib import Path

from irconv.backends.base import Executable
from irconv.backends.codegen.machine import find_machine, this_machine
from irconv.backends.native.backend import native_target
from irconv.backends.native.runtime import Pool
from irconv.backends.native.runtime import threads as available_threads
from irconv.backends.native.standalone.blueprint import Blueprint
from irconv.backends.native.standalone.names import identifier
from irconv.backends.native.standalone.planning import StandaloneLowering, make_blueprint
from irconv.backends.native.standalone.writer import compile_files, write
from irconv.backends.native.tuning import Tuner
from irconv.compile import Compiled, plan, storage_passes
from irconv.errors import AttributeValueError, BackendError, ModelError
from irconv.passes.accumulation import joint_graph
from irconv.passes.base import Pipeline, Stage
from irconv.passes.dce import DeadCode
from irconv.passes.layout import ChannelsLast
from irconv.passes.recompute import Recompute
from irconv.training import Step

PORTABLE = "generic"
"""The machine that libraries are for unless another is named: any processor that the C compiler knows."""

THREADS = 16
"""The most threads that a library uses unless more are asked for: memory for temporaries is set aside for so many."""

STORAGE = (ChannelsLast.name, Recompute.name)


@dataclass(frozen=True)
class Library:
    """A library that has been written.

    name:         with which its functions begin: ``name_init``, ``name_run`` (``name_step`` where it trains), ``name_free``.
    machine:      the kind of processor that it is for.
    kernels:      how many files of generated kernels there are.
    memory_bytes: what it allocates when it runs, weights included.
    built:        the static library, the shared one and the program; empty if they were not to be compiled.
    """

    folder: Path
    name: str
    machine: str
    kernels: int
    memory_bytes: int
    built: tuple[Path, ...]


def build_library(
    program: Compiled | Step | Executable,
    directory: str | os.PathLike[str],
    *,
    name: str | None = None,
    machine: str = PORTABLE,
    threads: int = THREADS,
    embed: bool = False,
    precision: str = "fast",
    compile: bool = True,
    tune: bool = False,
) -> Library:
    """Write a program, as compiled for its last inputs, to ``directory`` as C; weights have the values they have now.

    program:   what :func:`irconv.compile` or :func:`irconv.compile_step` returned, on whatever backend.
    name:      of the library; by default after the program.
    machine:   "avx512", "avx2", "sse2", "neon", "generic" (any processor), or "native" for this one.
    threads:   the most that it may use.
    embed:     put the weights into the library, too; else they are read from ``name.safetensors``.
    precision: "fast", or "strict" for algorithms with plain rounding only.
    compile:   whether to make the libraries and the program here; if not, ``make`` in the folder does.
    tune:      measure several ways to compute each convolution and matrix product and take the fastest, as
               :func:`irconv.compile` does; only for the machine that this is.

    Raises BackendError where a part of the program has no C code (with the ops and lines), where another machine is to be tuned
    for, or the compiler is missing, for other processors, or fails; ModelError where the folder cannot be written.
    """
    if threads < 1:
        raise AttributeValueError(f"threads must be 1 or more, got {threads}")
    blueprint = standalone_blueprint(program, name, machine, threads, precision, tune=tune)
    files = write(blueprint, Path(directory), embed)
    built = compile_files(blueprint, files) if compile else ()
    return Library(
        Path(directory), blueprint.name, blueprint.machine.name, len(blueprint.units), blueprint.memory_bytes, built
    )


def standalone_blueprint(
    program: Compiled | Step | Executable,
    name: str | None = None,
    machine: str = PORTABLE,
    threads: int = THREADS,
    precision: str = "fast",
    apart: bool = False,
    tune: bool = False,
) -> Blueprint:
    """The program planned for a machine (see :func:`build_library`).  ``apart``: every value in memory of its own."""
    executable = _executable(program)
    planned = executable.program
    tuner = _tuner(machine, threads) if tune else None
    lowering = StandaloneLowering(find_machine(machine), threads, None, precision == "strict", tuner)
    target = native_target(lowering)
    first = _unstored(executable)
    accumulation = program.accumulation if isinstance(program, Step) else None
    passes = storage_passes(target)
    if accumulation is not None:
        graph = joint_graph(first.graph, _unstored(accumulation.update).graph, accumulation.batches, accumulation.waiting)
        first, passes = replace(first, graph=graph), [DeadCode(), *passes]
    paths = {value: path for path, value in planned.graph.outputs.items()}
    guards = [paths[value] for value in planned.schedule.guards]
    stages = [first, *Pipeline(passes).run(first.graph)]
    chosen = identifier(name or planned.graph.name.removesuffix("_step"), "network")
    return make_blueprint(plan(stages, target, guards), lowering, chosen, apart)


def _unstored(executable: Executable) -> Stage:
    """The graph before it was said how values are stored."""
    planned = executable.program
    before = [stage for stage in planned.stages if stage.name not in STORAGE]
    return before[-1] if before else Stage("trace", planned.graph, 0.0, True)


def _tuner(machine: str, threads: int) -> Tuner:
    """What measures for a library.  Raises BackendError where it is for another machine than this one."""
    here = this_machine().name
    if machine not in ("native", here):
        raise BackendError(
            f"tuning measures on this machine, which is {here}, and the library is for {machine} processors",
            hint=f"name this machine (machine='native' or '{here}'; --machine on the command line), or leave tuning out",
        )
    return Tuner(Pool(min(threads, available_threads())))


def _executable(program: Compiled | Step | Executable) -> Executable:
    if isinstance(program, Step):
        program = program.compiled
    if not isinstance(program, Compiled):
        return program
    if program.executable is None:
        raise ModelError("nothing has been compiled yet", hint="call it, or specialise() it, first")
    return program.executable
