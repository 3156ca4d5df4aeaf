"""What both sides of the comparison share: a process that answers one line of JSON for each line of JSON it reads.

Commands: ``prepare`` a row, ``check`` (outputs, or the losses of the first training steps, into a file), ``time`` calls for a
while, ``profile`` kernels, ``peak`` memory.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import json
import os
import resource
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import rows


class Side(Protocol):
    """One of the two programs that are compared."""

    def prepare(self, row: rows.Row, folder: Path) -> dict[str, Any]:
        """Make the model ready to run; returns what is to be told about it."""
        ...

    def call(self) -> Any:
        """One forward pass, or one training step."""
        ...

    def result(self) -> np.ndarray:
        """Outputs of one forward pass, or the losses of the first training steps of a fresh model."""
        ...

    def profile(self) -> list[dict[str, Any]]:
        """Time of each kernel, where the side can tell."""
        ...


def serve(make: Callable[[int], Side]) -> None:
    """Answer commands from standard input until it ends.  The first argument of the process is the number of threads."""
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "w")
    sys.stdout = sys.stderr  # nothing but answers goes to the pipe
    side = make(int(sys.argv[1]))
    before = resident_bytes()
    for line in sys.stdin:
        command = json.loads(line)
        try:
            answer = _answer(side, command, before)
        except Exception:
            answer = {"error": traceback.format_exc()}
        answers.write(json.dumps(answer) + "\n")
        answers.flush()


def _answer(side: Side, command: dict[str, Any], before: int) -> dict[str, Any]:
    match command["do"]:
        case "prepare":
            return side.prepare(rows.parse(command["row"]), Path(command["folder"]))
        case "check":
            np.save(command["path"], side.result())
            release_memory()
            reset_peak()
            return {}
        case "time":
            return {"seconds": timed(side.call, command["seconds"])}
        case "profile":
            return {"kernels": side.profile()}
        case "peak":
            return {"bytes": peak_bytes() - before}
    raise ValueError(f"unknown command {command!r}")


def timed(call: Callable[[], Any], seconds: float) -> list[float]:
    """Times of calls, made for so long and at least twice; an untimed call first warms the caches."""
    call()
    times: list[float] = []
    end = time.perf_counter() + seconds
    while len(times) < 2 or time.perf_counter() < end:
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    return times


# --- memory ---------------------------------------------------------------------------------------------------------------


def _status(field: str) -> int | None:
    with contextlib.suppress(OSError), open("/proc/self/status", encoding="ascii") as status:
        for line in status:
            if line.startswith(field):
                return int(line.split()[1]) * 1024
    return None


def resident_bytes() -> int:
    """Memory of this process."""
    return _status("VmRSS:") or peak_bytes()


def peak_bytes() -> int:
    """The most memory this process had since :func:`reset_peak` (since its start where that cannot be reset)."""
    unit = 1 if sys.platform == "darwin" else 1024
    return _status("VmHWM:") or resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def reset_peak() -> None:
    """Let the peak start again from what is in use now (Linux only)."""
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")


def release_memory() -> None:
    """Give what was freed back to the system, so that only what a call needs is counted."""
    gc.collect()
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)
