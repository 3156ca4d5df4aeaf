"""The linear maps of Winograd's F(m x m, 3x3), along one axis: Y = A' [ (G w) * (B' x) ].

With tiles of four outputs the points are 0, 1, -1, 2, -2 and infinity, with tiles of two 0, 1, -1 and infinity; everything is
a few additions and multiplications by small numbers, on whatever expressions are given.  Two axes are one after the other.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from irconv.backends.codegen.body import Body
from irconv.backends.codegen.form import Expression

Values = Sequence[Expression]
Transform = Callable[[Body, Values], list[Expression]]


def input_transform(body: Body, d: Values) -> list[Expression]:
    """B' d for the m + 2 inputs under m outputs."""
    if len(d) == 4:
        return _let(body, "v", [d[0] - d[2], d[1] + d[2], d[2] - d[1], d[1] - d[3]])
    a = body.let("a", d[4] - d[2] * 4.0)
    b = body.let("b", d[3] - d[1] * 4.0)
    c = body.let("c", d[4] - d[2])
    e = body.let("e", (d[3] - d[1]) * 2.0)
    outer = [(d[0] - d[2]) * 4.0 + c, (d[5] - d[3]) - e * 2.0]
    return _let(body, "v", [outer[0], a + b, a - b, c + e, c - e, outer[1]])


def output_transform(body: Body, m: Values) -> list[Expression]:
    """A' m: the m outputs of m + 2 products."""
    if len(m) == 4:
        return _let(body, "y", [m[0] + m[1] + m[2], m[1] - m[2] - m[3]])
    a, b = body.let("a", m[1] + m[2]), body.let("b", m[1] - m[2])
    c, e = body.let("c", m[3] + m[4]), body.let("e", m[3] - m[4])
    return _let(body, "y", [m[0] + a + c, b + e * 2.0, a + c * 4.0, b + e * 8.0 + m[5]])


def weight_transform(body: Body, g: Values, products: int) -> list[Expression]:
    """G g: ``products`` (m + 2) numbers from the three weights."""
    outer, middle = g[0] + g[2], g[1]
    if products == 4:
        return _let(body, "u", [g[0], (outer + middle) * 0.5, (outer - middle) * 0.5, g[2]])
    sixth, twelfth = 1 / 6, 1 / 12
    even = body.let("even", g[0] * (1 / 24) + g[2] * sixth)
    return _let(
        body,
        "u",
        [
            g[0] * 0.25,
            (outer + middle) * -sixth,
            (outer - middle) * -sixth,
            even + middle * twelfth,
            even - middle * twelfth,
            g[2],
        ],
    )


def adjoint_output_transform(body: Body, d: Values) -> list[Expression]:
    """A d: six numbers from the four gradients of a tile's outputs."""
    a, b = body.let("a", d[0] + d[2]), body.let("b", d[1] + d[3])
    c, e = body.let("c", d[0] + d[2] * 4.0), body.let("e", d[1] * 2.0 + d[3] * 8.0)
    return _let(body, "e", [d[0], a + b, a - b, c + e, c - e, d[3]])


def adjoint_weight_transform(body: Body, m: Values) -> list[Expression]:
    """G' m: the gradients of three weights from six sums."""
    a, b = body.let("a", (m[1] + m[2]) * (-1 / 6)), body.let("b", (m[1] - m[2]) * (-1 / 6))
    c, e = body.let("c", m[3] + m[4]), body.let("e", (m[3] - m[4]) * (1 / 12))
    return _let(body, "g", [m[0] * 0.25 + a + c * (1 / 24), b + e, a + c * (1 / 6) + m[5]])


def on_both_axes(
    body: Body,
    size: int,
    transform: Transform,
    value: Callable[[int, int], Expression],
    use: Callable[[int, Expression], None],
) -> None:
    """The transform down the columns, then along the rows, of the ``size`` x ``size`` values ``value(i, j)``.

    ``use(number, result)`` is called for each result in row-major order.  Values are asked for column by column and results
    used row by row, so that few are alive at any time: they are held in registers.
    """
    columns = [transform(body, [value(i, j) for i in range(size)]) for j in range(size)]
    number = 0
    for row in zip(*columns, strict=True):
        for result in transform(body, row):
            use(number, result)
            number += 1


def _let(body: Body, name: str, values: Values) -> list[Expression]:
    return [body.let(name, value) for value in values]
