"""Work counted in executed lines of Python, the same on every machine: what tests of "near-linear" compare."""

from __future__ import annotations

import sys
from collections.abc import Callable
from types import FrameType
from typing import Any


def steps(function: Callable[[], object]) -> int:
    """How many lines of Python a call executes, in all functions it calls."""
    count = 0

    def trace(frame: FrameType, event: str, argument: Any) -> Any:
        nonlocal count
        count += event == "line"
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        function()
    finally:
        sys.settrace(before)
    return count


def assert_near_linear(make: Callable[[int], Callable[[], object]], small: int, large: int) -> None:
    """``make(size)`` returns the call to count; ``large`` may take twice as many steps per item as ``small``."""
    few, many = steps(make(small)), steps(make(large))
    assert many / large < 2 * few / small, f"{few} steps for {small} items, {many} for {large}"
