"""The errors a user can cause, each with the place, the op, the shapes and what to do.

Every error derives from :class:`IrconvError`.  Code that knows only a part of the story raises with that part; code
further out (the builder, the driver, the CLI) fills in what is still missing with :meth:`IrconvError.at`.
"""

from __future__ import annotations

from typing import Self

from irconv.places import Location, user_location


class IrconvError(Exception):
    """Base of every error that irconv raises on purpose.

    message:  what is wrong, with the numbers.
    hint:     what to do about it.
    location: the line to blame; by default the user's line that was running (see :attr:`place`).
    excerpt:  the op with its operand types, or the lines of IR concerned.
    """

    def __init__(
        self, message: str, *, hint: str | None = None, location: Location | None = None, excerpt: str | None = None
    ):
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.location = location
        self.excerpt = excerpt
        self._raised_at = user_location()

    @property
    def place(self) -> Location | None:
        """The line to show: the location if one is known, else where the user's program was when the error arose."""
        return self.location or self._raised_at

    def at(
        self, *, location: Location | None = None, excerpt: str | None = None, hint: str | None = None
    ) -> Self:
        """Fill in what is not known yet, and return self (so that ``raise error.at(...)`` reads well)."""
        self.location = self.location or location
        self.excerpt = self.excerpt or excerpt
        self.hint = self.hint or hint
        return self

    def __str__(self) -> str:
        lines = [self.message]
        if self.place is not None:
            lines.append(f"  at {self.place}")
        if self.excerpt:
            lines.append("  in " + self.excerpt.replace("\n", "\n     "))
        if self.hint:
            lines.append(f"  hint: {self.hint}")
        return "\n".join(lines)


class ShapeError(IrconvError, ValueError):
    """Shapes that do not fit an op, or an output that would be empty."""


class DTypeError(IrconvError, TypeError):
    """Element types that an op does not take, or that do not fit each other."""


class AttributeValueError(IrconvError, ValueError):
    """A parameter of an op or layer that is out of range (a negative stride, groups that do not divide, ...)."""


class TraceError(IrconvError, RuntimeError):
    """Python that cannot be recorded: the truth value of a traced tensor, a traced value stored in a NumPy array, ...

    Not a TypeError: NumPy replaces those, raised while it converts an element, by messages of its own.
    """


class GradientError(IrconvError, RuntimeError):
    """A gradient that was asked for and does not exist."""


class GraphError(IrconvError, ValueError):
    """A graph that breaks its own rules, or a change that would make it do so."""


class ParseError(IrconvError, ValueError):
    """IR text that is not a graph; ``location`` is the line of the text."""


class StateError(IrconvError, ValueError):
    """Parameters, buffers or checkpoints that are missing, surplus or of the wrong type."""


class BackendError(IrconvError, RuntimeError):
    """A backend that is not installed, not usable here, or asked for what it cannot do."""


class NumericsError(IrconvError, ArithmeticError):
    """A value that is not finite where the user asked for it to be checked, or backends that disagree."""


class ModelError(IrconvError, ValueError):
    """A model, file or command-line argument that cannot be found or read."""
