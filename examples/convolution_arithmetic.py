"""Draws the classic figures of convolution arithmetic: which cells of the input make which cell of the output.

Run it: python examples/convolution_arithmetic.py [--output FOLDER]

As text, and with matplotlib also as pictures.  The sizes are irconv's own, read off the traced graph.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import click
import numpy as np

import irconv
import irconv.nn.functional as F

PADDING, CELL, WINDOW, ZERO = ".", "o", "#", "+"
"""A cell of the padding; of the input; of the window; and the window where it lies on padding."""


@dataclass(frozen=True)
class Figure:
    """A square convolution, or the transpose of one (its parameters are then those of the convolution it transposes)."""

    name: str
    size: int
    kernel: int
    stride: int = 1
    padding: int = 0
    dilation: int = 1
    transposed: bool = False
    output_padding: int = 0

    @property
    def spread(self) -> int:
        """Distance between neighbouring input cells: a transposed convolution puts stride - 1 zeros between them."""
        return self.stride if self.transposed else 1

    @property
    def step(self) -> int:
        """How far the window moves: the window of a transposed convolution moves one by one."""
        return 1 if self.transposed else self.stride

    @property
    def border(self) -> int:
        """Zeros around the input; for a transposed convolution, what the window needs to reach every output."""
        return self.dilation * (self.kernel - 1) - self.padding if self.transposed else self.padding


FIGURES = (
    Figure("no padding", 4, 3),
    Figure("padding 2", 5, 4, padding=2),
    Figure("half padding: the size is kept", 5, 3, padding=1),
    Figure("full padding: the size grows", 5, 3, padding=2),
    Figure("stride 2", 5, 3, stride=2),
    Figure("padding 1, stride 2", 5, 3, stride=2, padding=1),
    Figure("padding 1, stride 2, one column left over", 6, 3, stride=2, padding=1),
    Figure("dilation 2", 7, 3, dilation=2),
    Figure("no padding, transposed", 2, 3, transposed=True),
    Figure("padding 2, transposed", 6, 4, padding=2, transposed=True),
    Figure("half padding, transposed", 5, 3, padding=1, transposed=True),
    Figure("full padding, transposed", 7, 3, padding=2, transposed=True),
    Figure("stride 2, transposed", 2, 3, stride=2, transposed=True),
    Figure("padding 1, stride 2, transposed", 3, 3, stride=2, padding=1, transposed=True),
    Figure(
        "padding 1, stride 2, output padding 1, transposed",
        3,
        3,
        stride=2,
        padding=1,
        transposed=True,
        output_padding=1,
    ),
)


def output_size(figure: Figure) -> int:
    """Side of the output, as irconv's type rule has it."""

    def program(x, w):
        if figure.transposed:
            return F.conv_transpose2d(
                x,
                w,
                stride=figure.stride,
                padding=figure.padding,
                dilation=figure.dilation,
                output_padding=figure.output_padding,
            )
        return F.conv2d(x, w, stride=figure.stride, padding=figure.padding, dilation=figure.dilation)

    sides = (figure.size, figure.size), (figure.kernel, figure.kernel)
    graph = irconv.trace(program, *(irconv.TensorSpec((1, 1, *side)) for side in sides))
    return graph[next(iter(graph.outputs.values()))].type.shape[-1]


def cells(figure: Figure, row: int, column: int) -> np.ndarray:
    """The padded input as characters, with the window that computes output (row, column)."""
    inner = (figure.size - 1) * figure.spread + 1
    side = inner + 2 * figure.border + (figure.output_padding if figure.transposed else 0)
    grid = np.full((side, side), PADDING)
    inside = slice(figure.border, figure.border + inner, figure.spread)
    grid[inside, inside] = CELL
    reach = figure.dilation * np.arange(figure.kernel)
    window = np.ix_(row * figure.step + reach, column * figure.step + reach)
    grid[window] = np.where(grid[window] == CELL, WINDOW, ZERO)
    return grid


def draw(figure: Figure, row: int, column: int) -> str:
    """Input on the left, output on the right, the window and the cell it computes marked."""
    side = output_size(figure)
    left = [" ".join(line) for line in cells(figure, row, column)]
    target = np.full((side, side), CELL)
    target[row, column] = WINDOW
    right = [" ".join(line) for line in target]
    height = max(len(left), len(right))
    width = len(left[0])

    def centred(lines: Sequence[str], length: int) -> list[str]:
        above = (height - len(lines)) // 2
        return [" " * length] * above + list(lines) + [" " * length] * (height - len(lines) - above)

    pairs = zip(centred(left, width), centred(right, len(right[0])), strict=True)
    return "\n".join(f"  {a}   {b}".rstrip() for a, b in pairs)


def caption(figure: Figure) -> str:
    return (
        f"{figure.name}: {figure.size}x{figure.size} input, {figure.kernel}x{figure.kernel} kernel, "
        f"{output_size(figure)}x{output_size(figure)} output"
    )


def picture(figure: Figure, folder: Path) -> Path | None:
    """The figure as a PNG; None without matplotlib."""
    try:
        import matplotlib as mpl  # noqa: PLC0415  # an extra
    except ImportError:
        return None
    mpl.use("Agg")
    from matplotlib import pyplot as plt  # noqa: PLC0415  # after the backend is chosen

    shades = {PADDING: 0.0, CELL: 0.35, ZERO: 0.6, WINDOW: 1.0}
    side = output_size(figure)
    result = np.full((side, side), shades[CELL])
    result[0, 0] = shades[WINDOW]
    drawing, (left, right) = plt.subplots(1, 2, figsize=(6, 3))
    for axes, grid in ((left, np.vectorize(shades.get)(cells(figure, 0, 0))), (right, result)):
        axes.pcolormesh(grid[::-1], cmap="Blues", vmin=0, vmax=1.2, edgecolors="grey", linewidth=0.5)
        axes.set_aspect("equal")
        axes.set_axis_off()
    drawing.suptitle(caption(figure), fontsize=8)
    path = folder / f"{figure.name.replace(', ', '_').replace(': ', '_').replace(' ', '_')}.png"
    drawing.savefig(path, dpi=120)
    plt.close(drawing)
    return path


@click.command()
@click.option("--output", type=click.Path(path_type=Path), help="Folder for pictures (needs matplotlib).")
def main(output: Path | None) -> None:
    """Draw every figure, with its first window and its last."""
    print(f"{CELL} input or output   {WINDOW} window   {PADDING} zero   {ZERO} window on a zero\n")
    for figure in FIGURES:
        last = output_size(figure) - 1
        print(f"{caption(figure)}\n{draw(figure, 0, 0)}\n\n{draw(figure, last, last)}\n")
    if output is not None:
        output.mkdir(parents=True, exist_ok=True)
        written = [picture(figure, output) for figure in FIGURES]
        print(f"{len(written)} pictures in {output}" if all(written) else "no pictures: pip install matplotlib")


if __name__ == "__main__":
    main()
