"""Writing functions in the loop-level form: statements are added in order, loops and conditions are ``with`` blocks.

::

    body = Body()
    with body.loop("i", 0, n) as i:
        x = body.let("x", load(source, i))
        body.store(target, i, x * x)
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager

from irconv.backends.codegen.form import INDEX, Expression, Literal, Operand, Pointer, Variable, as_expression
from irconv.backends.codegen.statements import (
    Assign,
    Comment,
    Fence,
    For,
    Function,
    GetPointer,
    If,
    Let,
    LetPointer,
    LocalArray,
    MovePointer,
    PointerArray,
    Prefetch,
    Run,
    SetPointer,
    Statement,
    Store,
)
from irconv.types import DType

FIRST, LAST, WORKER = Variable("first", INDEX), Variable("last", INDEX), Variable("worker", INDEX)
"""Parameters of every function: its tasks are ``first`` to ``last - 1``, and it runs on thread ``worker``."""


class Body:
    """Statements under construction.  Names of locals are made unique by a number where they occur again."""

    def __init__(self) -> None:
        self._blocks: list[list[Statement]] = [[]]
        self._names: dict[str, int] = {}

    def statements(self) -> tuple[Statement, ...]:
        """What has been written."""
        return tuple(self._blocks[0])

    def function(
        self,
        name: str,
        buffers: Sequence[tuple[str, DType, bool]],
        sizes: Sequence[str] = (),
        shared: Iterable[str] = (),
    ) -> Function:
        """What has been written, as a function (see :class:`Function`)."""
        return Function(name, tuple(buffers), tuple(sizes), self.statements(), frozenset(shared))

    def name(self, wish: str) -> str:
        """``wish``, or it with a number if it is taken."""
        name, number = wish, self._names.get(wish, 0)
        while name in self._names:  # "p_1" may have been wished for as well
            name, number = f"{wish}_{max(1, number)}", max(1, number) + 1
        self._names[wish] = max(1, number)
        self._names.setdefault(name, 1)
        return name

    def add(self, statement: Statement) -> None:
        self._blocks[-1].append(statement)

    def comment(self, text: str) -> None:
        self.add(Comment(text))

    # --- locals ------------------------------------------------------------------------------------------------------

    def let(self, name: str, value: Expression) -> Expression:
        """A local that holds the value; literals and variables are given back as they are."""
        if isinstance(value, Literal | Variable):
            return value
        variable = Variable(self.name(name), value.type)
        self.add(Let(variable, value))
        return variable

    def variable(self, name: str, value: Expression) -> Variable:
        """A local that may be assigned to."""
        variable = Variable(self.name(name), value.type)
        self.add(Let(variable, value, mutable=True))
        return variable

    def assign(self, variable: Variable, value: Expression) -> None:
        self.add(Assign(variable, value))

    def pointer(self, name: str, source: Pointer, offset: Operand = 0, *, mutable: bool = False) -> Pointer:
        """A local pointer to ``source[offset]``."""
        pointer = Pointer(self.name(name), source.dtype)
        self.add(LetPointer(pointer, source, as_expression(offset, INDEX), mutable))
        return pointer

    def move(self, pointer: Pointer, source: Pointer, offset: Operand) -> None:
        """Let a mutable pointer show ``source[offset]``."""
        self.add(MovePointer(pointer, source, as_expression(offset, INDEX)))

    def array(self, name: str, dtype: DType, size: int) -> Pointer:
        """An uninitialised local array."""
        pointer = Pointer(self.name(name), dtype)
        self.add(LocalArray(pointer, size))
        return pointer

    def pointers(self, name: str, dtype: DType, size: int) -> PointerArray:
        """A local array of pointers."""
        array = PointerArray(self.name(name), dtype, size)
        self.add(array)
        return array

    def set_pointer(
        self,
        array: PointerArray,
        index: Operand,
        source: Pointer,
        offset: Operand,
        condition: Expression | None = None,
        other: Pointer | None = None,
    ) -> None:
        """``array[index] = condition ? source + offset : other``."""
        self.add(SetPointer(array, as_expression(index, INDEX), source, as_expression(offset, INDEX), condition, other))

    def get_pointer(self, name: str, array: PointerArray, index: Operand) -> Pointer:
        """A local pointer that shows what ``array[index]`` does."""
        pointer = Pointer(self.name(name), array.dtype)
        self.add(GetPointer(pointer, array, as_expression(index, INDEX)))
        return pointer

    # --- effects -----------------------------------------------------------------------------------------------------

    def store(self, pointer: Pointer, index: Operand, value: Expression, count: Operand | None = None) -> None:
        """``pointer[index...] = value``, all lanes or the first ``count``."""
        part = None if count is None else as_expression(count, INDEX)
        self.add(Store(pointer, as_expression(index, INDEX), value, part))

    def prefetch(self, pointer: Pointer, index: Operand, far: bool = False) -> None:
        """Ask for the cache line of ``pointer[index]``; it need not be an element of it.  ``far``: it is not read soon."""
        self.add(Prefetch(pointer, as_expression(index, INDEX), far))

    def run(
        self,
        function: Function,
        shown: Mapping[int, tuple[Pointer, Operand]],
        sizes: Sequence[Operand],
        first: Operand,
        last: Operand,
    ) -> None:
        """Run tasks of another function of the file on this one's buffers; ``shown``: others, by position (see :class:`Run`)."""
        others = tuple((position, pointer, as_expression(at, INDEX)) for position, (pointer, at) in shown.items())
        bounds = tuple(as_expression(size, INDEX) for size in sizes)
        count = len(function.buffers)
        self.add(Run(function.name, count, others, bounds, as_expression(first, INDEX), as_expression(last, INDEX)))

    def fence(self) -> None:
        """Keep memory accesses on their side of this point (see :class:`Fence`)."""
        self.add(Fence())

    # --- structure ---------------------------------------------------------------------------------------------------

    @contextmanager
    def loop(self, name: str, start: Operand, stop: Operand, step: int = 1, *, unroll: int = 0) -> Iterator[Expression]:
        """Statements to repeat for the variable from ``start`` below ``stop``; a single turn becomes a plain block."""
        low, high = as_expression(start, INDEX), as_expression(stop, INDEX)
        if isinstance(low, Literal) and isinstance(high, Literal) and 0 < high.value - low.value <= step:
            yield low
            return
        variable = Variable(self.name(name), INDEX)
        self._blocks.append([])
        yield variable
        inner = tuple(self._blocks.pop())
        self.add(For(variable, low, high, step, inner, unroll))

    @contextmanager
    def when(self, condition: Expression) -> Iterator[None]:
        """Statements to run where the truth value holds."""
        self._blocks.append([])
        yield
        self.add(If(condition, tuple(self._blocks.pop())))

    @contextmanager
    def otherwise(self) -> Iterator[None]:
        """Statements to run where the condition of the ``when`` just before does not hold."""
        self._blocks.append([])
        yield
        inner = tuple(self._blocks.pop())
        last = self._blocks[-1].pop()
        assert isinstance(last, If), "otherwise() follows when()"
        self.add(If(last.condition, last.then, inner))

    @contextmanager
    def tasks(self, name: str = "task") -> Iterator[Expression]:
        """Statements to run for each of the function's tasks."""
        with self.loop(name, FIRST, LAST) as task:
            yield task
