"""Where the time of a program goes: each kernel against the limits of this machine, as a table or as a trace.

The *share of roofline* of a kernel is the least time that its operations and bytes take on this machine
(:mod:`irconv.inspect.roofline`) over the time it took.  Algorithms that multiply less than the definition of their op (Winograd)
can exceed 1, as can kernels whose operands still lie in a cache.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass

from irconv.backends.base import ProfileRow
from irconv.inspect.roofline import Roofline


@dataclass(frozen=True, slots=True)
class KernelTime:
    """One kernel: seconds, share of all kernels' time, operations and bytes per second, share of the roofline, user's line."""

    name: str
    kind: str
    seconds: float
    share: float
    flops_per_second: float
    bytes_per_second: float
    of_roofline: float
    line: str


def kernel_times(rows: Sequence[ProfileRow], roofline: Roofline) -> list[KernelTime]:
    """What ``profile()`` of an executable found, slowest first."""
    total = sum(row.seconds for row in rows)
    times = []
    for row in rows:
        seconds = max(row.seconds, 1e-9)  # below what the clock can tell
        times.append(
            KernelTime(
                row.name,
                row.kind,
                row.seconds,
                row.seconds / total if total else 0.0,
                row.flops / seconds,
                row.bytes / seconds,
                roofline.seconds(row.flops, row.bytes) / seconds,
                str(row.location or ""),
            )
        )
    return sorted(times, key=lambda time: -time.seconds)


def trace_json(rows: Sequence[ProfileRow], name: str) -> str:
    """Chrome's trace format, which https://ui.perfetto.dev opens: the kernels one after the other, each with its best time."""
    events: list[dict[str, object]] = [
        {"name": "process_name", "ph": "M", "pid": 1, "args": {"name": name}},
        {"name": "thread_name", "ph": "M", "pid": 1, "tid": 1, "args": {"name": "kernels"}},
    ]
    start = 0.0
    for row in rows:
        microseconds = 1e6 * row.seconds
        details = {"bytes": row.bytes, "flops": row.flops, "line": str(row.location or "")}
        events.append(
            {"name": row.name, "cat": row.kind, "ph": "X", "ts": start, "dur": microseconds, "pid": 1, "tid": 1, "args": details}
        )
        start += microseconds
    return json.dumps({"traceEvents": events, "displayTimeUnit": "ns"}, indent=1)
