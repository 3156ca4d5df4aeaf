"""A table on a terminal, Markdown anywhere else."""

from __future__ import annotations

from collections.abc import Sequence

import click
from rich.console import Console
from rich.table import Table


def show(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print a table whose first column holds names and whose other columns hold numbers."""
    console = Console()
    if console.is_terminal:
        table = Table(title=title, title_justify="left")
        for i, column in enumerate(columns):
            table.add_column(column, justify="right" if i else "left")
        for row in rows:
            table.add_row(*row)
        console.print(table)
        return
    lines = [f"| {' | '.join(row)} |" for row in (columns, [":--", *["--:"] * (len(columns) - 1)], *rows)]
    click.echo("\n".join([f"{title}", "", *lines, ""]))
