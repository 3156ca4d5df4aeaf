"""From a planned program to the blueprint of a library: where every value is, and what runs in which order."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from irconv.backends.arrays.base import Array, ViewKernel
from irconv.backends.arrays.lower import operand_ids
from irconv.backends.arrays.steps import Check, Layout, Step, carve, lay_out
from irconv.backends.native.base import EXPORT, NativeKernel
from irconv.backends.native.composition import DEFINITION
from irconv.backends.native.library import Unit
from irconv.backends.native.lowering import NativeLowering
from irconv.backends.native.runtime import COPY, FINITE_F32, PHASE
from irconv.backends.native.segments import FINITE
from irconv.backends.native.standalone.blueprint import Argument, Blueprint, Place, Row, Tensor, UnitFile
from irconv.backends.native.standalone.names import distinct, identifier
from irconv.errors import BackendError
from irconv.kernel import Kernel, Program
from irconv.state import Variable
from irconv.types import TensorType

ALIGNMENT = 64
"""Bytes at whose multiples weights and constants begin."""

SMALL = 1024
"""Bytes up to which a constant stands in the code; larger ones are in the file of weights."""

HIDDEN = '__attribute__((visibility("hidden")))'

MOST_REFUSED = 20
"""How many kernels without code an error lists."""


class StandaloneLowering(NativeLowering):
    """Native kernels for programs that have nothing else."""

    alone = True


def make_blueprint(program: Program, lowering: NativeLowering, name: str, apart: bool = False) -> Blueprint:
    """Lay a program out for C.

    apart: give every value memory of exactly its size, for tools that find accesses outside of it.

    Raises BackendError, with the ops and the user's lines, where a kernel has no native code.
    """
    _require_code(program, lowering)
    return _Maker(program, lowering, name, apart).blueprint()


def _require_code(program: Program, lowering: NativeLowering) -> None:
    graph = program.graph
    missing = []
    for kernel in program.schedule.kernels:
        if not isinstance(lowering.lower(graph, kernel), (NativeKernel, ViewKernel)):
            node = graph[kernel.nodes[-1]]
            where = f" at {node.provenance.location}" if node.provenance.location else ""
            operands = ", ".join(str(graph[i].type) for i in operand_ids(graph, kernel))
            missing.append(f"{kernel.kind}({operands}) @{kernel.name}{where}")
    hint = "write that part of the model with other ops or types, or run it with irconv.compile"
    unchecked = [graph[i] for i in program.schedule.guards if graph[i].type.dtype not in FINITE]
    if unchecked and not missing:
        hint = "compute the loss in float32: cast what the model gives, .astype('float32')"
    missing += [f"the check that %{node.name} is finite, for {node.type}" for node in unchecked]
    if missing:
        more = [f"and {len(missing) - MOST_REFUSED} more"] if len(missing) > MOST_REFUSED else []
        raise BackendError(
            "there is no C code for\n" + "\n".join(f"  {line}" for line in [*missing[:MOST_REFUSED], *more]),
            hint=hint,
        )


@dataclass
class _Memory:
    """Regions as they grow."""

    blocks: list[tuple[str, int]] = field(default_factory=list)

    def block(self, what: str, size: int) -> int:
        self.blocks.append((what, size))
        return len(self.blocks) - 1

    def append(self, region: int, size: int) -> Place:
        """Room at the end of a block."""
        what, used = self.blocks[region]
        offset = -(-used // ALIGNMENT) * ALIGNMENT
        self.blocks[region] = (what, offset + size)
        return Place(region, offset)


def _no_check(value: Any) -> None:
    raise NotImplementedError


def _no_copy(target: object, source: object) -> None:
    raise NotImplementedError


class _Maker:
    """Makes one blueprint."""

    def __init__(self, program: Program, lowering: NativeLowering, name: str, apart: bool):
        self.program, self.graph = program, program.graph
        self.lowering, self.name, self.apart = lowering, name, apart
        guards: dict[int, Check] = dict.fromkeys(program.schedule.guards, _no_check)
        self.layout: Layout = lay_out(program, lowering, _no_copy, guards)
        self.memory = _Memory()
        self.places: dict[int, Place] = {}
        self.types: dict[int, TensorType] = {}  # of the slots that are no views
        self.tensors: list[Tensor] = []
        self.constants = bytearray()
        self.units: dict[Unit, UnitFile] = {}
        self.prepare: list[Row] = []
        self.run: list[Row] = []
        self.kept: dict[int, TensorType] = {}  # slots that are prepared once

    def blueprint(self) -> Blueprint:
        self._find_kept()
        self._place_arena()
        self._place_kept()
        self._place_states()
        constant_region = len(self.memory.blocks)
        inputs, outputs = self._arguments()
        self._place_constants(constant_region)
        self._place_called(constant_region + 1, inputs, outputs)
        self._place_views()
        for step in self.layout.steps:
            self._rows(step)
        return Blueprint(
            self.name, self.graph, self.lowering.machine, self.lowering.threads, tuple(self.units.values()),
            tuple(self.memory.blocks), bytes(self.constants), tuple(self.tensors), inputs, outputs,
            tuple(self.prepare), tuple(self.run),
        )  # fmt: skip

    # --- memory ------------------------------------------------------------------------------------------------------

    def _find_kept(self) -> None:
        """What is prepared of weights, once."""
        for step in self.layout.steps:
            if step.kernel is None:
                continue
            made = self._kernel(step.kernel)
            first = len(step.slots) - len(made.scratch)
            for prepared, _ in self.lowering.kept(self.graph, step.kernel):
                self.kept[step.slots[prepared.scratch]] = made.scratch[prepared.scratch - first]

    def _kernel(self, kernel: Kernel) -> NativeKernel:
        made = self.lowering.lower(self.graph, kernel)
        assert isinstance(made, NativeKernel)
        return made

    def _place_arena(self) -> None:
        arena = None if self.apart else self.memory.block("the arena", self.program.plan.arena_bytes)
        for slot, allocation, type_ in self.layout.places:
            if slot in self.kept:
                continue
            self.types[slot] = type_
            self.places[slot] = self._apart(slot, type_) if arena is None else Place(arena, allocation.offset)

    def _apart(self, slot: int, type_: TensorType) -> Place:
        return Place(self.memory.block(f"value {slot}", type_.bytes))

    def _place_kept(self) -> None:
        if self.kept and not self.apart:
            region = self.memory.block("what is prepared of weights", 0)
        for slot, type_ in self.kept.items():
            self.types[slot] = type_
            self.places[slot] = self._apart(slot, type_) if self.apart else self.memory.append(region, type_.bytes)

    def _place_states(self) -> None:
        """States, and constants that are too large for code."""
        graph = self.graph
        seen: dict[int, Place] = {}
        region = -1 if self.apart else self.memory.block("weights and other states", 0)
        used = self._read_slots()
        for state in graph.states:
            if state not in used and not graph.updates:
                continue  # an original that something was folded from
            variable = self._variable(state)
            self.types[state] = graph[state].type
            if id(variable) not in seen:
                seen[id(variable)] = self._tensor(graph[state].name, np.asarray(variable.array), region)
            self.places[state] = seen[id(variable)]
        taken = {tensor.name for tensor in self.tensors}
        for node in graph:
            if node.id in used and node.op.name == "constant" and (self.apart or node.type.bytes > SMALL):
                (unique,) = distinct([f"constant.{node.name}"], taken)
                taken.add(unique)
                self.types[node.id] = node.type
                self.places[node.id] = self._tensor(unique, np.asarray(node.attributes.value), region)

    def _read_slots(self) -> set[int]:
        """What steps use, and what it shows."""
        used = {slot for step in self.layout.steps for slot in step.slots}
        for view in reversed((*self.layout.views, *self.layout.call_views)):
            if view.target in used:
                used.add(view.source)
        return used

    def _tensor(self, name: str, array: Array, region: int) -> Place:
        array = np.ascontiguousarray(array, array.dtype.newbyteorder("<")).reshape(array.shape)
        if region < 0:
            place = Place(self.memory.block(f"tensor {len(self.tensors)}", array.nbytes))
        else:
            place = self.memory.append(region, array.nbytes)
        self.tensors.append(Tensor(name, array, place))
        return place

    def _variable(self, state: int) -> Variable:
        node = self.graph[state]
        variable = self.graph.state.get(node.name)
        if variable is None or variable.type != node.type:
            raise BackendError(f"state %{node.name} of graph {self.graph.name!r} has no array of type {node.type}")
        variable.refresh()
        return variable

    def _place_constants(self, region: int) -> None:
        used = self._read_slots()
        for node in self.graph:
            if node.id in used and node.op.name == "constant" and node.id not in self.places:
                self.constants.extend(bytes(-len(self.constants) % ALIGNMENT))
                self.types[node.id] = node.type
                self.places[node.id] = Place(region, len(self.constants))
                array = np.asarray(node.attributes.value)
                self.constants.extend(np.ascontiguousarray(array, array.dtype.newbyteorder("<")).tobytes())

    def _arguments(self) -> tuple[tuple[Argument, ...], tuple[Argument, ...]]:
        graph = self.graph
        paths = [graph[i].name for i in graph.inputs]
        inputs = distinct(identifier(path, "x") for path in paths)
        outputs = distinct((identifier(path, "y") for path in graph.outputs), inputs)
        return (
            tuple(Argument(n, p, graph[i].type.logical) for n, p, i in zip(inputs, paths, graph.inputs, strict=True)),
            tuple(Argument(n, p, graph[i].type.logical) for n, (p, i) in zip(outputs, graph.outputs.items(), strict=True)),
        )

    def _place_called(self, region: int, inputs: Sequence[Argument], outputs: Sequence[Argument]) -> None:
        slots = (*self.graph.inputs, *self.graph.outputs.values())
        for number, (slot, argument) in enumerate(zip(slots, (*inputs, *outputs), strict=True)):
            self.types[slot] = argument.type
            self.places[slot] = Place(region + number)

    def _place_views(self) -> None:
        """A view begins where it would in an array like its source's, of which only addresses are looked at."""
        arrays: dict[int, Array] = {}
        for view in (*self.layout.views, *self.layout.call_views):
            place = self.places.get(view.source)
            if place is None:
                continue  # nobody reads it
            if view.source not in arrays:
                type_ = self.types[view.source]
                arrays[view.source] = carve(np.empty(max(1, type_.bytes), np.uint8), 0, type_)
            source = arrays[view.source]
            shown = arrays[view.target] = view.view(source)
            distance = shown.__array_interface__["data"][0] - source.__array_interface__["data"][0] if shown.size else 0
            self.places[view.target] = Place(place.region, place.offset + distance)

    # --- steps -------------------------------------------------------------------------------------------------------

    def _rows(self, step: Step) -> None:
        if step.kernel is None:
            self.run.append(self._plain(step))
            return
        kernel = step.kernel
        made = self._kernel(kernel)
        unit = self._unit(kernel, made)
        kept = {prepared.phase for prepared, _ in self.lowering.kept(self.graph, kernel)}
        places = tuple(self.places[slot] for slot in step.slots)
        for position, phase in enumerate(made.phases):
            function = unit.functions[phase.function]
            row = Row(PHASE, function, places, made.sizes, phase.tasks, f"{kernel.kind} @{kernel.name}")
            (self.prepare if position in kept else self.run).append(row)
            if made.check is not None and made.check.phase == position:
                found = places[len(places) - len(made.scratch) + made.check.scratch]
                self.run.append(Row(FINITE_F32, "", (found,), (), 1, f"indices of @{kernel.name}", is_index_check=True))

    def _plain(self, step: Step) -> Row:
        """The check of a guard, or the copy of a new state."""
        places = tuple(self.places[slot] for slot in step.slots)
        node = self.graph[step.slots[-1]]
        if len(places) == 2:
            return Row(COPY, "", places, (), node.type.bytes, f"new state from %{node.name}")
        return Row(FINITE[node.type.dtype], "", places, (), node.type.size, f"%{node.name} has to be finite")

    def _unit(self, kernel: Kernel, made: NativeKernel) -> UnitFile:
        unit = made.unit
        found = self.units.get(unit)
        if found is None:
            number = len(self.units)
            # functions that are no phase of this kernel are exported, too
            names = dict.fromkeys([*(phase.function for phase in made.phases), *DEFINITION.findall(made.source)])
            functions = {name: f"{self.name}_kernel{number}_{name}" for name in names}
            found = UnitFile(number, _renamed(made.source, functions), unit.flags, functions, ())
        self.units[unit] = replace(found, kernels=(*found.kernels, kernel))
        return self.units[unit]


def _renamed(source: str, functions: dict[str, str]) -> str:
    """The source with its functions under names of their own, for other files of the library alone."""
    source = source.replace(EXPORT, HIDDEN)
    for name, unique in functions.items():
        source = re.sub(rf"\b{re.escape(name)}\b", unique, source)
    return source
