"""Statements of the loop-level form, and functions of them (expressions are in :mod:`.form`).

:class:`irconv.backends.codegen.body.Body` writes them; :mod:`irconv.backends.codegen.c` prints them.
"""

from __future__ import annotations

from dataclasses import dataclass

from irconv.backends.codegen.form import Expression, Pointer, Type, Variable
from irconv.types import DType


@dataclass(frozen=True, slots=True)
class Let:
    """Declare a local that keeps its value (``mutable``: that may be assigned to)."""

    variable: Variable
    value: Expression
    mutable: bool = False


@dataclass(frozen=True, slots=True)
class LetPointer:
    """Declare a pointer: ``source + offset`` elements."""

    pointer: Pointer
    source: Pointer
    offset: Expression
    mutable: bool = False


@dataclass(frozen=True, slots=True)
class MovePointer:
    """``pointer = source + offset``."""

    pointer: Pointer
    source: Pointer
    offset: Expression


@dataclass(frozen=True, slots=True)
class LocalArray:
    """An uninitialised array of ``size`` elements on the stack, aligned to a cache line."""

    pointer: Pointer
    size: int


@dataclass(frozen=True, slots=True)
class PointerArray:
    """A local array of ``size`` pointers to elements; see :class:`SetPointer` and :class:`GetPointer`."""

    name: str
    dtype: DType
    size: int


@dataclass(frozen=True, slots=True)
class SetPointer:
    """``array[index] = condition ? source + offset : other`` (always the first without a condition)."""

    array: PointerArray
    index: Expression
    source: Pointer
    offset: Expression
    condition: Expression | None = None
    other: Pointer | None = None


@dataclass(frozen=True, slots=True)
class GetPointer:
    """Declare ``pointer = array[index]``."""

    pointer: Pointer
    array: PointerArray
    index: Expression


@dataclass(frozen=True, slots=True)
class Assign:
    """Give a mutable local a new value."""

    variable: Variable
    value: Expression


@dataclass(frozen=True, slots=True)
class Store:
    """Write a value (all its lanes, or the first ``count``) to ``pointer[index]`` and on."""

    pointer: Pointer
    index: Expression
    value: Expression
    count: Expression | None = None


@dataclass(frozen=True, slots=True)
class Prefetch:
    """Ask for the cache line of ``pointer[index]``, which need not be an element of it.

    far: into the second-level cache only: it is not read soon.
    """

    pointer: Pointer
    index: Expression
    far: bool = False


@dataclass(frozen=True, slots=True)
class TransposeTile:
    """``target[i * target_stride + j] = source[j * source_stride + i]`` for a tile, both from an index on.

    type:   vectors, and tiles as high as they are long; one lane: tiles of any size, element by element.
    rows, columns: how many i and j there are; None: as many as lanes.
    """

    target: Pointer
    target_index: Expression
    target_stride: Expression
    source: Pointer
    source_index: Expression
    source_stride: Expression
    type: Type
    rows: Expression | None = None
    columns: Expression | None = None


@dataclass(frozen=True, slots=True)
class For:
    """``for (variable = start; variable < stop; variable += step)``."""

    variable: Variable
    start: Expression
    stop: Expression
    step: int
    body: tuple[Statement, ...]
    unroll: int = 0  # ask the compiler to unroll so many times; 0: as it likes


@dataclass(frozen=True, slots=True)
class If:
    """Run ``then`` where the truth value holds, else ``otherwise``."""

    condition: Expression
    then: tuple[Statement, ...]
    otherwise: tuple[Statement, ...] = ()


@dataclass(frozen=True, slots=True)
class Run:
    """Run tasks ``first`` to ``last`` - 1 of another function of the file, which is printed before.

    It is given this function's buffers, ``count`` of them, but for those in ``shown``: (position, pointer, elements from there;
    the buffer then begins so far from the pointer, or before it).  ``sizes``: its run-time bounds.
    """

    function: str
    count: int
    shown: tuple[tuple[int, Pointer, Expression], ...]
    sizes: tuple[Expression, ...]
    first: Expression
    last: Expression


@dataclass(frozen=True, slots=True)
class Fence:
    """No read or write of memory is moved across this point: work that stands behind a condition stays there.

    It costs no instruction.  First in the branch that copies where there is something to copy: GCC 12 with -O3 unrolls short
    loops, takes the condition into vectors of conditional loads, and for pairs of neighbours gets those wrong (avx2, avx512).
    """


@dataclass(frozen=True, slots=True)
class Comment:
    """A line for people."""

    text: str


Statement = (
    Let | LetPointer | MovePointer | LocalArray | PointerArray | SetPointer | GetPointer | Assign | Store | Prefetch
    | TransposeTile | For | If | Run | Fence | Comment
)


@dataclass(frozen=True, slots=True)
class Function:
    """One phase of a kernel: an exported function over tasks ``first`` to ``last``.

    buffers: what the kernel's buffers hold, in order: (name, element type, whether this function writes it).
    sizes:   names of the run-time bounds, in order.
    shared:  names of buffers that may be one and the same memory (results in place); all others are apart from each other.
    """

    name: str
    buffers: tuple[tuple[str, DType, bool], ...]
    sizes: tuple[str, ...]
    body: tuple[Statement, ...]
    shared: frozenset[str] = frozenset()
