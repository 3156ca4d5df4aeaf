"""Einstein summation as transposes, matrix products and sums."""

from __future__ import annotations

import math
import string

from irconv.errors import AttributeValueError, ShapeError
from irconv.op import Value
from irconv.ops.contract import matmul
from irconv.ops.elementwise import multiply
from irconv.ops.reduce import reduce_sum
from irconv.ops.shape import broadcast, reshape, slice_, transpose

LETTERS = frozenset(string.ascii_letters)


def einsum(equation: str, *operands: Value) -> Value:
    """The sum of products that ``equation`` describes, as ``numpy.einsum``: "bij,bjk->bik" is a batched matrix product.

    Every axis has a letter; letters not behind the arrow are summed over.  Without an arrow the result has the letters that
    occur once, in alphabetical order.  A letter twice in one operand takes its diagonal; "..." stands for axes that broadcast.
    Operands are contracted from left to right.
    """
    inputs, output = _parse(equation, [x.rank for x in operands])
    sizes = _sizes(equation, inputs, operands)
    terms = [_diagonal(x, letters) for x, letters in zip(operands, inputs, strict=True)]
    value, letters = terms[0]
    for position, (other, others) in enumerate(terms[1:], start=1):
        later = set(output).union(*(term[1] for term in terms[position + 1 :]))
        value, letters = _pair(value, letters, other, others, later)
    value, letters = _summed(value, letters, set(output))
    value = transpose(value, [letters.index(letter) for letter in output])
    return broadcast(value, [sizes[letter] for letter in output])


def _refused(equation: str, why: str) -> AttributeValueError:
    return AttributeValueError(f"einsum equation {equation!r} {why}", hint="for example 'ij,jk->ik'")


def _parse(equation: str, ranks: list[int]) -> tuple[list[str], str]:
    """The letters of each operand and of the result, with digits for the axes under "..."."""
    left, arrow, right = equation.replace(" ", "").partition("->")
    parts = left.split(",")
    if len(parts) != len(ranks):
        raise _refused(equation, f"describes {len(parts)} operands, there are {len(ranks)}")
    extra = [_ellipsis(equation, part, rank) for part, rank in zip(parts, ranks, strict=True)]
    dots = [chr(ord("0") + i) for i in range(max(extra))]
    # broadcasting aligns the axes under "..." at their end
    inputs = [part.replace("...", "".join(dots[len(dots) - n :])) for part, n in zip(parts, extra, strict=True)]
    joined = "".join(parts).replace("...", "")
    if arrow:
        output = right.replace("...", "".join(dots), 1)
        named = right.replace("...", "", 1)
        if not set(named) <= set(joined) or len(set(named)) != len(named):
            raise _refused(equation, "may name each letter of the operands once behind the arrow, and no other")
        if dots and "..." not in right and any(extra):
            raise _refused(equation, "has '...' before the arrow and not behind it")
    else:
        output = "".join(dots) + "".join(sorted(letter for letter in set(joined) if joined.count(letter) == 1))
    return inputs, output


def _ellipsis(equation: str, part: str, rank: int) -> int:
    """How many axes "..." stands for in the letters of one operand."""
    named = part.replace("...", "", 1)
    if not set(named) <= LETTERS:
        raise _refused(equation, "may hold letters, commas, '->' and one '...' in each operand")
    if len(named) > rank or ("..." not in part and len(named) != rank):
        raise _refused(equation, f"names {len(named)} axes for an operand of rank {rank}")
    return rank - len(named)


def _sizes(equation: str, inputs: list[str], operands: tuple[Value, ...]) -> dict[str, int]:
    """The size of every letter; axes of size 1 broadcast."""
    sizes: dict[str, int] = {}
    for letters, x in zip(inputs, operands, strict=True):
        for letter, n in zip(letters, x.shape, strict=True):
            known = sizes.get(letter, 1)
            if 1 not in (known, n) and known != n:
                raise ShapeError(f"einsum {equation!r}: {letter!r} has size {known} in one place and {n} in another")
            sizes[letter] = n if known == 1 else known
    return sizes


def _diagonal(x: Value, letters: str) -> tuple[Value, str]:
    """x with axes of the same letter made one: every (n + 1)th element of the two laid end to end."""
    for letter in dict.fromkeys(letters):
        while letters.count(letter) > 1:
            first = letters.index(letter)
            second = letters.index(letter, first + 1)
            rest = [axis for axis in range(x.rank) if axis not in (first, second)]
            n = max(x.shape[first], x.shape[second])
            moved = transpose(x, [*rest, first, second])
            kept = moved.shape[:-2]
            flat = reshape(broadcast(moved, (*kept, n, n)), (*kept, n * n))
            whole = (None,) * len(kept)
            x = slice_(flat, (*whole, 0), (*whole, n * n), (*(1,) * len(kept), n + 1))
            letters = "".join(letters[axis] for axis in rest) + letter
    return x, letters


def _summed(x: Value, letters: str, wanted: set[str]) -> tuple[Value, str]:
    """x summed over the letters nobody wants."""
    axes = [axis for axis, letter in enumerate(letters) if letter not in wanted]
    kept = "".join(letter for letter in letters if letter in wanted)
    return (reduce_sum(x, axes) if axes else x), kept


def _pair(x: Value, of_x: str, y: Value, of_y: str, later: set[str]) -> tuple[Value, str]:
    """The product of two operands, summed over the letters that nobody wants later."""
    x, of_x = _summed(x, of_x, later | set(of_y))
    y, of_y = _summed(y, of_y, later | set(of_x))
    shared = [letter for letter in of_x if letter in of_y]
    batch = "".join(letter for letter in shared if letter in later)
    folded = "".join(letter for letter in shared if letter not in later)
    only_x = "".join(letter for letter in of_x if letter not in of_y)
    only_y = "".join(letter for letter in of_y if letter not in of_x)
    sizes = {letter: max(x.shape[of_x.index(letter)], y.shape[of_y.index(letter)]) for letter in folded}
    left = _arranged(x, of_x, batch + only_x + folded)
    right = _arranged(y, of_y, batch + folded + only_y)
    if not folded:
        spread = reshape(left, (*left.shape, *(1,) * len(only_y)))
        aligned = reshape(right, (*right.shape[: len(batch)], *(1,) * len(only_x), *right.shape[len(batch) :]))
        return multiply(spread, aligned), batch + only_x + only_y
    rows, columns = left.shape[len(batch) : len(batch + only_x)], right.shape[len(batch + folded) :]
    depth = [sizes[letter] for letter in folded]
    left = broadcast(left, (*left.shape[: len(batch + only_x)], *depth))
    right = broadcast(right, (*right.shape[: len(batch)], *depth, *columns))
    count = math.prod(depth)
    product = matmul(
        reshape(left, (*left.shape[: len(batch)], math.prod(rows), count)),
        reshape(right, (*right.shape[: len(batch)], count, math.prod(columns))),
    )
    return reshape(product, (*product.shape[:-2], *rows, *columns)), batch + only_x + only_y


def _arranged(x: Value, letters: str, order: str) -> Value:
    return transpose(x, [letters.index(letter) for letter in order])
