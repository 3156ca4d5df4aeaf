"""What commands print with: colour and boxes on a terminal, plain aligned text when piped."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import ClassVar

import click
from rich.console import Console
from rich.highlighter import RegexHighlighter
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text
from rich.theme import Theme

_THEME = Theme(
    {
        "ir.name": "cyan",
        "ir.type": "green",
        "ir.op": "bold",
        "ir.comment": "dim",
        "ir.added": "green",
        "ir.removed": "red",
        "ir.place": "magenta",
    }
)


class _Highlighter(RegexHighlighter):
    """Colours for IR text and for diffs of it."""

    base_style = "ir."
    highlights: ClassVar[list[str]] = [
        r"(?P<name>%[\w.\-/]+)",
        r"(?P<type>\b(?:f|i|u)(?:8|16|32|64)\[[\d,]*\]|\bbool\[[\d,]*\])",
        r"= (?P<op>\w+)\(",
        r"(?P<comment>  # .*)$",
        r"(?m)^(?P<added>\+.*)$",
        r"(?m)^(?P<removed>-.*)$",
        r"(?m)^(?P<place>@@.*)$",
    ]


def console() -> Console:
    """A console on what standard output is now."""
    return Console(theme=_THEME, highlight=False, soft_wrap=True)


def say(text: str = "") -> None:
    """Print a line as it is."""
    click.echo(text)


def heading(text: str) -> None:
    """Print a line that introduces what follows."""
    screen = console()
    if screen.is_terminal:
        screen.print(Text(text, "bold"))
    else:
        click.echo(text)


def code(text: str) -> None:
    """Print IR text or a diff, coloured on a terminal."""
    screen = console()
    if screen.is_terminal:
        screen.print(_Highlighter()(text.rstrip("\n")))
    else:
        click.echo(text.rstrip("\n"))


def table(
    columns: Sequence[str], rows: Sequence[Sequence[str]], right: Collection[int] = (), title: str | None = None
) -> None:
    """Print rows under their column names; ``right`` are the numbers of the columns to align to the right."""
    screen = console()
    if screen.is_terminal:
        shown = Table(title=title, title_justify="left")
        for number, column in enumerate(columns):
            shown.add_column(column, justify="right" if number in right else "left", overflow="fold")
        for row in rows:
            shown.add_row(*(Text(cell) for cell in row))
        screen.print(shown)
        return
    if title:
        click.echo(title)
    widths = [max(len(row[i]) for row in (columns, *rows)) for i in range(len(columns))]
    for row in (columns, *rows):
        cells = (c.rjust(w) if i in right else c.ljust(w) for i, (c, w) in enumerate(zip(row, widths, strict=True)))
        click.echo("  ".join(cells).rstrip())


def progress() -> Progress:
    """A progress bar on standard error, shown on a terminal only; tasks may set the field ``note``."""
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}"),
        console=Console(stderr=True),
        disable=not Console(stderr=True).is_terminal,
        redirect_stdout=False,  # what is piped away stays where it goes
        redirect_stderr=False,
    )


def say_beside(bar: Progress, text: str) -> None:
    """Print a line while a progress bar is shown: above it, if both are on the terminal."""
    if not bar.disable and console().is_terminal:
        bar.console.print(Text(text))
    else:
        click.echo(text)


def count(number: float) -> str:
    """A large number for people: 1.23 k, 4.56 M, 7.89 G."""
    for scale, unit in ((1e12, " T"), (1e9, " G"), (1e6, " M"), (1e3, " k")):
        if abs(number) >= scale:
            return f"{number / scale:.3g}{unit}"
    return f"{number:g}"


def size(number: int) -> str:
    """Bytes for people: 1.2 KB, 3.4 MB."""
    return f"{number} B" if number < 1000 else f"{count(number).replace('k', 'K')}B"


def milliseconds(seconds: float) -> str:
    """A time in milliseconds."""
    return f"{1000 * seconds:.2f}"
