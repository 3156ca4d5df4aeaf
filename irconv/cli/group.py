"""The group that all commands belong to: it turns irconv's errors into messages and an exit status."""

from __future__ import annotations

import sys
from typing import IO, Any

import click

from irconv.errors import IrconvError


class Failure(click.ClickException):
    """An IrconvError on its way to the terminal: its text without a traceback, exit status 1."""

    exit_code = 1

    def show(self, file: IO[Any] | None = None) -> None:
        """Print the message to standard error."""
        target = sys.stderr if file is None else file
        click.secho("error: ", fg="red", bold=True, nl=False, file=target)
        click.echo(self.message, file=target)


class Commands(click.Group):
    """A click group whose commands may raise IrconvError."""

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command; with ``--traceback`` errors pass through as they are."""
        try:
            return super().invoke(ctx)
        except IrconvError as error:
            if ctx.params.get("traceback"):
                raise
            raise Failure(str(error)) from error
