"""Moving lanes between vectors: in any order, interleaved, or every so many."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from irconv.backends.codegen.body import Body
from irconv.backends.codegen.form import Expression, Type
from irconv.errors import BackendError


@dataclass(frozen=True, slots=True)
class Shuffle(Expression):
    """Lanes of two vectors in a given order: ``order[i]`` counts through the first's lanes, then the second's."""

    first: Expression
    second: Expression
    order: tuple[int, ...]
    type: Type


def shuffle(first: Expression, second: Expression, order: Sequence[int]) -> Expression:
    """As many lanes of two vectors of one type, in a given order (see :class:`Shuffle`)."""
    if first.type != second.type or len(order) != first.type.lanes or first.type.lanes == 1:
        raise BackendError(f"lanes of {first.type} and {second.type} cannot be taken in an order of {len(order)}")
    return Shuffle(first, second, tuple(order), first.type)


def interleave(body: Body, vectors: Sequence[Expression]) -> list[Expression]:
    """Lane 0 of each vector, then lane 1 of each, and so on, as so many vectors.

    Neighbours are interleaved two by two first, each result then takes its lanes from about half as many vectors.
    """
    count, lanes = len(vectors), vectors[0].type.lanes
    sources: list[Expression] = []
    place: dict[tuple[int, int], tuple[int, int]] = {}  # (vector, lane) -> (source, lane of it)
    for first in range(0, count - 1, 2):
        a, b = (body.let("lanes", vector) for vector in vectors[first : first + 2])
        for half in (0, lanes // 2):
            order = [half + lane // 2 + lane % 2 * lanes for lane in range(lanes)]
            place |= {(first + lane % 2, half + lane // 2): (len(sources), lane) for lane in range(lanes)}
            sources.append(body.let("pair", shuffle(a, b, order)))
    if count % 2:
        place |= {(count - 1, lane): (len(sources), lane) for lane in range(lanes)}
        sources.append(body.let("lanes", vectors[-1]))
    made = []
    for start in range(0, count * lanes, lanes):
        wanted = [place[at % count, at // count] for at in range(start, start + lanes)]
        made.append(body.let("interleaved", _gathered(body, sources, wanted)))
    return made


def every(body: Body, vectors: Sequence[Expression], start: int, step: int, count: int) -> Expression:
    """Lanes ``start``, ``start + step``, ... of vectors read one after the other, as one vector.

    The last of ``count`` lanes fills up the vector where they are fewer than its own.
    """
    lanes = vectors[0].type.lanes
    places = [start + min(lane, count - 1) * step for lane in range(lanes)]
    return _gathered(body, vectors, [(place // lanes, place % lanes) for place in places])


def _gathered(body: Body, sources: Sequence[Expression], wanted: Sequence[tuple[int, int]]) -> Expression:
    """A vector of the ``wanted`` lanes: each the number of a source and of its lane."""
    lanes = len(wanted)
    first, *others = dict.fromkeys(number for number, _ in wanted)
    merged = sources[first]
    order = [lane if number == first else 0 for number, lane in wanted]  # where the lanes are by now
    for other in others or [first]:
        order = [lanes + lane if number == other else at for at, (number, lane) in zip(order, wanted, strict=True)]
        if order != list(range(lanes, 2 * lanes)):
            merged = shuffle(body.let("merged", merged), sources[other], order)
        order = list(range(lanes))
    return merged
