"""A planned program as data that C is printed from: units, memory, and rows of steps whose operands have places.

All memory is in *regions*: blocks that are allocated once (the arena, the weights, what is prepared of them), small constants
that stand in the code, and the arrays of a call.  A place is a region and an offset in bytes.
"""

from __future__ import annotations

from dataclasses import dataclass

from irconv.backends.arrays.base import Array
from irconv.backends.codegen.machine import Machine
from irconv.graph import Graph
from irconv.kernel import Kernel
from irconv.types import TensorType


@dataclass(frozen=True, slots=True)
class Place:
    """Where the first element of a value is: ``offset`` bytes into a region."""

    region: int
    offset: int = 0


@dataclass(frozen=True, slots=True)
class Row:
    """A step as the runtime takes it (see runtime.c); ``function`` is empty but for phases.

    is_index_check: if this check fails, an index was out of range (else a guarded value is not finite).
    """

    kind: int
    function: str
    places: tuple[Place, ...]
    sizes: tuple[int, ...]
    tasks: int
    comment: str
    is_index_check: bool = False


@dataclass(frozen=True, slots=True)
class Tensor:
    """An array in the file of weights, and where it goes in memory."""

    name: str
    array: Array
    place: Place


@dataclass(frozen=True, slots=True)
class Argument:
    """An array of a call: its C name, the name in the model, and its type."""

    name: str
    path: str
    type: TensorType


@dataclass(frozen=True)
class UnitFile:
    """A C file: the source of one or more kernels.  ``functions`` are its phases, under names of their own in the library."""

    number: int
    source: str
    flags: tuple[str, ...]
    functions: dict[str, str]
    kernels: tuple[Kernel, ...]


@dataclass(frozen=True)
class Blueprint:
    """All that is to be written.

    blocks:    (what it holds, bytes) of each region that is allocated; then come the constants, the inputs and the outputs.
    prepare:   what fills the prepared weights, when those are loaded.
    constants: contents of the region of small constants.
    threads:   the most that the memory is enough for.
    """

    name: str
    graph: Graph
    machine: Machine
    threads: int
    units: tuple[UnitFile, ...]
    blocks: tuple[tuple[str, int], ...]
    constants: bytes
    tensors: tuple[Tensor, ...]
    inputs: tuple[Argument, ...]
    outputs: tuple[Argument, ...]
    prepare: tuple[Row, ...]
    run: tuple[Row, ...]

    @property
    def trains(self) -> bool:
        """Whether a call changes states."""
        return bool(self.graph.updates)

    @property
    def memory_bytes(self) -> int:
        """What the library allocates."""
        return sum(size for _, size in self.blocks)
