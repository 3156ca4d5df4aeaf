"""The process of one side: it answers one line of JSON for each line of JSON that it reads.

    python -m irconv.bench.worker SIDE THREADS

Commands: ``prepare`` a task in a mode, ``check`` (results into a file), ``time`` calls for a while, ``profile`` kernels,
``peak`` memory.  What the side's library prints goes to standard error.
"""

from __future__ import annotations

import importlib
import json
import os
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from irconv.bench.memory import peak_bytes, release_memory, reset_peak, resident_bytes
from irconv.bench.sides.base import Side
from irconv.bench.task import Task
from irconv.errors import IrconvError


def serve(name: str, threads: int) -> None:
    """Answer commands from standard input until it ends."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # nothing but answers goes to the pipe, whatever C libraries print
    make: Callable[[int], Side] = importlib.import_module(f"irconv.bench.sides.{name}").make
    side = make(threads)
    before = resident_bytes()
    answers.write("{}\n")
    answers.flush()
    for line in sys.stdin:
        try:
            answer = _answer(side, json.loads(line), before)
        except IrconvError as error:
            answer = {"error": str(error)}
        except Exception as error:
            answer = {"error": f"{type(error).__name__}: {error}", "traceback": traceback.format_exc()}
        answers.write(json.dumps(answer) + "\n")
        answers.flush()


def _answer(side: Side, command: dict[str, Any], before: int) -> dict[str, Any]:
    match command["do"]:
        case "prepare":
            start = time.perf_counter()
            told = side.prepare(Task.from_json(command["task"]), Path(command["folder"]), command["mode"])
            return {"compile": time.perf_counter() - start, **told}
        case "check":
            np.savez(command["path"], **side.results())  # type: ignore[arg-type]  # the names of the arrays are data
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


if __name__ == "__main__":
    serve(sys.argv[1], int(sys.argv[2]))
