"""What a pass is, and the pipeline that runs passes and keeps every stage.

A pass is a frozen dataclass: its fields are its options, and ``name{option=value}`` is how it is spelled on the
command line (:func:`parse_pass`, :func:`parse_pipeline`; ``str(pass_)`` spells it back).  ``run`` changes the graph it
is given and says whether it changed anything: valid graph in, valid graph out.
"""

from __future__ import annotations

import abc
import re
import time
from collections.abc import Iterable
from dataclasses import dataclass, fields
from typing import Any, ClassVar, Protocol, TypeVar, get_type_hints

from irconv.errors import GraphError, IrconvError, ModelError
from irconv.graph import Graph
from irconv.verify import verify


@dataclass(frozen=True, slots=True)
class Note:
    """Why something was not done: the rule, the value concerned, and the reason with its numbers."""

    rule: str
    node: str
    reason: str

    def __str__(self) -> str:
        return f"%{self.node}: {self.rule}: {self.reason}"


class Pass(abc.ABC):
    """Base of every pass.

    Subclasses are frozen dataclasses; their fields (int, float, bool or str), all with a default, are the options.
    """

    name: ClassVar[str]

    @abc.abstractmethod
    def run(self, graph: Graph, notes: list[Note] | None = None) -> bool:
        """Change ``graph`` in place and say whether anything changed; reasons for refusing go to ``notes``."""

    def __str__(self) -> str:
        """The command-line spelling, with the options that are not at their default."""
        options = [
            f"{option.name}={_spell(getattr(self, option.name))}"
            for option in fields(self)  # type: ignore[arg-type]  # every subclass is a dataclass
            if getattr(self, option.name) != option.default
        ]
        return f"{self.name}{{{','.join(options)}}}" if options else self.name


PASSES: dict[str, type[Pass]] = {}
"""Every pass by name, filled as the files of ``irconv.passes`` are imported."""

PassType = TypeVar("PassType", bound=type[Pass])


def register_pass(pass_type: PassType) -> PassType:
    """Class decorator: enter a pass into ``PASSES``."""
    if pass_type.name in PASSES:
        raise GraphError(f"pass {pass_type.name!r} is registered twice")
    PASSES[pass_type.name] = pass_type
    return pass_type


# --- spelling ---------------------------------------------------------------------------------------------------------

_SPELLING = re.compile(r"\s*([A-Za-z_][\w-]*)\s*(?:\{([^{}]*)\})?\s*")


def parse_pass(text: str) -> Pass:
    """The pass spelled ``name`` or ``name{option=value,option=value}``.  Raises ModelError saying what there is."""
    matched = _SPELLING.fullmatch(text)
    if matched is None:
        raise ModelError(f"{text!r} is not a pass", hint="write it as name or name{option=value,option=value}")
    name = matched[1].replace("-", "_")
    pass_type = PASSES.get(name)
    if pass_type is None:
        raise ModelError(f"there is no pass {name!r}", hint=f"passes: {', '.join(sorted(PASSES))}")
    types = get_type_hints(pass_type)
    known = {option.name: types[option.name] for option in fields(pass_type)}  # type: ignore[arg-type]  # a dataclass
    given: dict[str, Any] = {}
    for part in (matched[2] or "").split(","):
        if part.strip():
            option, _, value = (piece.strip() for piece in part.partition("="))
            if option not in known:
                there_are = f"its options: {', '.join(known)}" if known else "it has no options"
                raise ModelError(f"pass {name!r} has no option {option!r}", hint=there_are)
            given[option] = _parse_option(name, option, known[option], value)
    return pass_type(**given)


def parse_pipeline(text: str) -> Pipeline:
    """Passes separated by commas, such as ``simplify,fold_constants{limit_bytes=4096},dce``."""
    parts = re.split(r",(?![^{]*\})", text)
    return Pipeline([parse_pass(part) for part in parts if part.strip()])


def _parse_option(name: str, option: str, kind: type, value: str) -> Any:
    booleans = {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}
    try:
        return booleans[value.lower()] if kind is bool else kind(value)
    except (KeyError, ValueError):
        raise ModelError(f"option {option!r} of pass {name!r} is of type {kind.__name__}, got {value!r}") from None


def _spell(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


# --- the pipeline -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Stage:
    """The graph as one pass left it.

    name:    the pass as spelled on the command line.
    graph:   its result; the very graph of the stage before when nothing changed.
    seconds: what the pass took, without verification and checking.
    changed: whether it changed anything.
    notes:   what it refused to do, and why.
    """

    name: str
    graph: Graph
    seconds: float
    changed: bool
    notes: tuple[Note, ...] = ()


class StageChecker(Protocol):
    """What the pipeline asks of a checking mode (see :class:`irconv.passes.check.Checker`)."""

    def check(self, name: str, before: Graph, after: Graph) -> None:
        """Raise NumericsError if the graph computes something else after the pass ``name``."""


@dataclass(frozen=True)
class Pipeline:
    """Passes in order."""

    passes: tuple[Pass, ...]

    def __init__(self, passes: Iterable[Pass]):
        object.__setattr__(self, "passes", tuple(passes))

    def run(self, graph: Graph, checker: StageChecker | None = None) -> list[Stage]:
        """Run every pass, each on a copy of what the one before left, and return the stages.

        ``graph`` itself is not changed.  Each result is verified; a ``checker`` also compares the numbers.
        Raises GraphError naming the pass that broke the graph, NumericsError naming the one that changed its numbers.
        """
        stages: list[Stage] = []
        current = graph
        work: Graph | None = None
        for pass_ in self.passes:
            notes: list[Note] = []
            if work is None:
                work = current.copy()
            start = time.perf_counter()
            changed = pass_.run(work, notes)
            seconds = time.perf_counter() - start
            if changed:
                _verify_after(str(pass_), work)
                if checker is not None:
                    checker.check(str(pass_), current, work)
                current, work = work, None
            stages.append(Stage(str(pass_), current, seconds, changed, tuple(notes)))
        return stages

    def __str__(self) -> str:
        return ",".join(map(str, self.passes))


def _verify_after(name: str, graph: Graph) -> None:
    try:
        verify(graph)
    except IrconvError as error:
        raise GraphError(
            f"pass {name} left an invalid graph: {error.message}", location=error.location, excerpt=error.excerpt
        ) from error
