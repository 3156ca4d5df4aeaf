"""Kernels chosen by measurement, and the record of what was found.

Each contraction has several candidates: the direct algorithm in tiles and tasks of several sizes, Winograd's with both sizes of
tiles.  All are compiled side by side and measured (:mod:`irconv.backends.native.measure`), and the fastest is taken.

The record is one small file for each geometry, beside the compiled units and kept like them: private, checked, written as a whole
or not at all, bounded in size.  A file that is damaged, or says something that cannot be, counts as none.

A geometry's key is made of all that its times depend on: the code of the kernel that would be chosen without measuring (which
says all about shapes, strides and what is fused), its run-time sizes (the batch), the names of the candidates, whether weights
stay as they are, whether the caches hold other data, the generators, the compiler, the processor, the number of threads.

Two processes that measure the same geometry at once may disagree; the first to finish is followed by the other.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Sequence
from dataclasses import replace
from functools import lru_cache
from pathlib import Path

from irconv.backends.base import Choice
from irconv.backends.native.base import Candidate, NativeKernel, NativeRequest, named
from irconv.backends.native.compiler import FLAGS, find_compiler, processor
from irconv.backends.native.library import library
from irconv.backends.native.measure import Measure, is_swept, measure
from irconv.backends.native.runtime import Pool, pool
from irconv.graph import Node
from irconv.op import describe

FORMAT = 1
"""Grows when records of older versions must not be used."""

NOISE = 0.95
"""What a candidate may take of the planned one's time at the most to be chosen instead: less may be chance."""

Times = tuple[tuple[str, float], ...]
"""(candidate, best seconds), fastest first."""


class Tuner:
    """Chooses the fastest candidate of each kernel.

    pool:    the threads that kernels will run on; None: those of the process.
    measure: takes the times.
    """

    def __init__(self, pool: Pool | None = None, measure: Measure = measure) -> None:
        self._given = pool
        self._measure = measure
        self._known: dict[str, Times] = {}

    @property
    def _pool(self) -> Pool:
        return self._given or pool()

    def choose(
        self, request: NativeRequest, candidates: Sequence[Candidate], stays: frozenset[int]
    ) -> NativeKernel | None:
        """The kernel of the fastest candidate, which says how it was chosen; None if there is code for none.

        stays: the operands that do not change from call to call.
        """
        by_name = {candidate.name: candidate for candidate in candidates}
        planned, kernel = _first(request, candidates)
        if kernel is None or len(by_name) == 1 or _is_empty(request):
            return kernel
        key = self._key(request, candidates, kernel, stays)
        times = self._known.get(key) or recall(key, by_name, planned)
        remembered = times is not None
        if times is None:
            times = self._times(request, by_name, planned, stays)
            times = recall(key, by_name, planned) or times
            library().remember(key, record(times))
        self._known[key] = times
        chosen = fastest(times, planned)
        made = kernel if chosen == planned else _make(request, by_name[chosen])
        if made is None:  # no record of ours says so
            return kernel
        return replace(made, choice=Choice(geometry(request), chosen, planned, times, remembered))

    def _times(
        self, request: NativeRequest, by_name: dict[str, Candidate], planned: str, stays: frozenset[int]
    ) -> Times:
        """Measure those that there is code for, and whose code differs."""
        distinct: dict[object, tuple[str, NativeKernel]] = {}
        for name in [planned, *by_name]:
            made = _make(request, by_name[name])
            if made is not None:
                distinct.setdefault((made.source, made.phases, made.sizes, made.scratch), (name, made))
        names = [name for name, _ in distinct.values()]
        seconds = self._measure(request, [made for _, made in distinct.values()], stays, self._pool)
        return tuple(sorted(zip(names, seconds, strict=True), key=lambda each: each[1]))

    def _key(
        self, request: NativeRequest, candidates: Sequence[Candidate], kernel: NativeKernel, stays: frozenset[int]
    ) -> str:
        machine = request.machine
        parts = [
            FORMAT,
            generators(),
            kernel.source,
            [(phase.function, phase.tasks) for phase in kernel.phases],
            kernel.sizes,
            [candidate.name for candidate in candidates],
            [i in stays for i in request.kernel.inputs],
            is_swept(request),
            (FLAGS, machine.flags, machine.cache_bytes),
            find_compiler().identity,
            processor(),
            (self._pool.threads, request.threads),
        ]
        return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


def _first(request: NativeRequest, candidates: Sequence[Candidate]) -> tuple[str, NativeKernel | None]:
    """What would be chosen without measuring, by name; no kernel if there is code for none."""
    for candidate in candidates:
        made = _make(request, candidate)
        if made is not None:
            return candidate.name, made
    return "", None


def _make(request: NativeRequest, candidate: Candidate) -> NativeKernel | None:
    made = candidate.make()
    return None if made is None else named(made, request.kernel.name, request.machine)


def _is_empty(request: NativeRequest) -> bool:
    """Whether there is nothing to measure."""
    return any(request.graph[i].type.size == 0 for i in (*request.kernel.inputs, *request.kernel.outputs))


def geometry(request: NativeRequest) -> str:
    """What is computed, in words: the heaviest op with its operands."""
    graph = request.graph

    def work(node: Node) -> int:
        return node.op.cost(node.attributes, tuple(o.type for o in graph.operands(node)), node.type).flops

    node = max((graph[i] for i in request.kernel.nodes), key=work)
    operands = ", ".join(str(operand.type) for operand in graph.operands(node))
    return f"{request.kernel.kind}: {node.op.name}({operands}) {describe(node.attributes)}".rstrip()


def fastest(times: Times, planned: str) -> str:
    """The candidate to take: the planned one unless another is faster by more than what chance explains."""
    seconds = dict(times)
    name = min(seconds, key=seconds.__getitem__)
    return name if seconds[name] < NOISE * seconds[planned] else planned


# --- the record ------------------------------------------------------------------------------------------------------------


def record(times: Times) -> bytes:
    """What is written to disk."""
    return json.dumps({"format": FORMAT, "times": times}).encode()


def recall(key: str, names: dict[str, Candidate], planned: str) -> Times | None:
    """The times on disk; None if there are none, or none that can be used."""
    contents = library().recall(key)
    try:
        found = json.loads(contents) if contents is not None else None
    except (ValueError, RecursionError):
        return None
    if not isinstance(found, dict) or found.get("format") != FORMAT:
        return None
    times = found.get("times")
    if not isinstance(times, list) or not times or not all(_is_time(each, names) for each in times):
        return None
    ordered = tuple(sorted(((name, seconds) for name, seconds in times), key=lambda each: each[1]))
    return ordered if planned in dict(ordered) else None


def _is_time(each: object, names: dict[str, Candidate]) -> bool:
    """Whether this is a candidate and its seconds."""
    if not isinstance(each, list) or len(each) != 2:
        return False
    name, seconds = each
    known = isinstance(name, str) and name in names
    return known and isinstance(seconds, float) and math.isfinite(seconds) and seconds >= 0


@lru_cache(maxsize=1)
def generators() -> str:
    """A hash of the code that writes, runs and measures kernels: other code, other times."""
    here = Path(__file__).parent
    folders = (here, here / "kernels", here.parent / "codegen")
    found = hashlib.sha256()
    for path in sorted(path for folder in folders for path in folder.glob("*.[pc]*") if path.suffix in (".py", ".c")):
        found.update(path.name.encode() + b"\0" + path.read_bytes())
    return found.hexdigest()
