"""Reads damaged copies of real model files: each must become a graph or be refused with one IrconvError.

``python tests/onnx/fuzz.py --count 20000`` runs the inputs in several processes, each with a limit on memory, and with a limit
on time for each input.  An input is named by its number: ``--start 1234 --count 1 --keep FOLDER`` repeats one and keeps the file.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import resource
import signal
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any

import click
import onnx  # noqa: F401  # before memory is limited
from rich.progress import Progress

import irconv
from irconv.errors import IrconvError
from irconv.frontends.onnx import load_model
from irconv.text import large_constants
from irconv.verify import verify

if __name__ == "__main__":
    checkout = Path(__file__).parents[2]
    sys.path[:0] = [str(checkout), str(checkout / "examples")]

from tests.onnx.mutate import mutated, weight_places
from tests.onnx.real_models import path_of

MODELS = ("pnet", "rnet", "text_direction", "speech_opinion")
SECONDS = 10
"""An input that takes longer (in this process, whatever else the machine does) hangs."""

BYTES = 2**30
"""Memory that reading an input may take, beyond what the libraries take."""

LONGEST_MESSAGE = 20_000
CLOSED = -1
"""What a worker sends when it is done."""

OPEN_SIZE = 48
"""Taken for dimensions that a file leaves open."""


@dataclass
class Report:
    """outcomes: how many inputs were imported and refused; failures: number of the input, and what went wrong."""

    outcomes: Counter[str] = field(default_factory=Counter)
    failures: list[tuple[int, str]] = field(default_factory=list)
    slowest: tuple[float, int] = (0.0, 0)
    most_memory: int = 0


class HangError(BaseException):
    """Not an Exception: nobody may catch it."""


# --- one input ---------------------------------------------------------------------------------------------------------------


def check(path: Path) -> str:
    """Import a file and see that the graph is whole; what came of it.  Raises what a user must never see."""
    try:
        model = load_model(path)
        specs = [irconv.TensorSpec(tuple(_size(n) for n in port.dims or ()), port.dtype or "f32") for port in model.inputs]
        graph = irconv.trace(model, *specs)
    except IrconvError as error:
        _readable(error)
        return "refused"
    verify(graph)
    text = str(graph)
    if str(irconv.parse(text, large_constants(graph))) != text:
        raise AssertionError("the text of the graph does not come back")
    return "imported"


def _size(declared: int | str | None) -> int:
    return declared if isinstance(declared, int) else OPEN_SIZE


def _readable(error: IrconvError) -> None:
    """Raises AssertionError for an error that hides a lack of memory or cannot be shown."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, MemoryError):
            raise AssertionError(f"out of memory: {error}")
        cause = cause.__cause__
    if len(str(error).encode()) > LONGEST_MESSAGE:
        raise AssertionError(f"a message of {len(str(error))} characters: {str(error)[:1000]}")


# --- a process that checks inputs ----------------------------------------------------------------------------------------------


def work(connection: Connection, numbers: list[int], keep: Path | None) -> None:
    """Check the inputs of these numbers, and send (number, outcome, seconds, memory) for each: outcomes with spaces are failures."""
    sources = [path_of(name).read_bytes() for name in MODELS]
    places = [weight_places(data) for data in sources]
    sys.addaudithook(_watch)
    with tempfile.TemporaryDirectory(prefix="irconv-fuzz-") as outer, contextlib.chdir(_prepared(Path(outer))):
        _limit_memory()
        for number in numbers:
            connection.send((number, "", 0.0, 0))
            which = number % len(MODELS)
            data, damage = mutated(sources[which], number, places[which])
            path = Path("model.onnx")
            path.write_bytes(data)
            start = time.process_time()
            outcome = outcome_of(path)
            seconds = time.process_time() - start
            if " " in outcome:
                outcome = f"{MODELS[which]}, {damage}: {outcome}"
                if keep is not None:
                    (keep / f"{number}.onnx").write_bytes(data)
            connection.send((number, outcome, seconds, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024))
    connection.send((CLOSED, "", 0.0, 0))


def outcome_of(path: Path) -> str:
    """What came of checking a file: one word, or a description of the failure."""

    def stop(*_: Any) -> None:
        raise HangError

    signal.signal(signal.SIGPROF, stop)
    signal.setitimer(signal.ITIMER_PROF, SECONDS)
    try:
        with _no_escape():
            return check(path)
    except HangError:
        return f"hangs at {traceback.format_exc(limit=-6)}"
    except BaseException:
        return f"raises {traceback.format_exc(limit=-8)}"
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)


_OPENED: list[str] = []


def _watch(event: str, arguments: tuple[Any, ...]) -> None:
    if event == "open" and isinstance(arguments[0], (str, bytes)):
        _OPENED.append(os.path.realpath(os.fsdecode(arguments[0])))


@contextlib.contextmanager
def _no_escape() -> Iterator[None]:
    """Raises AssertionError if a file outside of the model's folder was opened that holds no code."""
    _OPENED.clear()
    yield
    strange = [p for p in _OPENED if p.endswith(("outside.bin", "passwd"))]
    if strange:
        raise AssertionError(f"opened {strange}")


def _prepared(outer: Path) -> Path:
    """A folder for model files, with a file outside of it and a link to that."""
    (outer / "outside.bin").write_bytes(bytes(2**20))
    folder = outer / "folder"
    folder.mkdir()
    (folder / "link.bin").symlink_to(outer / "outside.bin")
    return folder


def _limit_memory() -> None:
    taken = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (taken + BYTES, taken + BYTES))


# --- all of them -----------------------------------------------------------------------------------------------------------------


@dataclass
class Worker:
    """A process, the inputs it has yet to do, and the one it is doing since when."""

    process: Any
    connection: Connection
    left: list[int]
    current: int | None = None
    since: float = 0.0


def run(numbers: list[int], processes: int, keep: Path | None = None, progress: Any = None) -> Report:
    """Check the inputs of these numbers; ``progress`` is called after each."""
    context = multiprocessing.get_context("spawn")
    report = Report()

    def started(left: list[int]) -> Worker:
        ours, theirs = context.Pipe()
        process = context.Process(target=work, args=(theirs, left, keep))
        process.start()
        theirs.close()
        return Worker(process, ours, left, None, time.monotonic())

    workers = [started(numbers[i::processes]) for i in range(processes)]
    while workers:
        ready = wait([w.connection for w in workers], timeout=1.0)
        for worker in list(workers):
            finished = _received(worker, report, progress) if worker.connection in ready else None
            stuck = time.monotonic() - worker.since > 6 * SECONDS  # in code that no signal interrupts
            if finished is None and not stuck:
                continue
            workers.remove(worker)
            rest = _ended(worker, report, bool(finished), stuck)
            if rest:
                workers.append(started(rest))
    return report


def _received(worker: Worker, report: Report, progress: Any) -> bool | None:
    """Take one message; True when the worker is done, False when it has died, None when it goes on."""
    try:
        number, outcome, seconds, memory = worker.connection.recv()
    except (EOFError, OSError):
        return False
    worker.since = time.monotonic()
    if number == CLOSED:
        return True
    if not outcome:
        worker.current = number
        return None
    worker.left = worker.left[1:]
    worker.current = None
    if " " in outcome:
        report.failures.append((number, outcome))
        outcome = "failed"
    report.outcomes[outcome] += 1
    report.slowest = max(report.slowest, (seconds, number))
    report.most_memory = max(report.most_memory, memory)
    if progress is not None:
        progress()
    return None


def _ended(worker: Worker, report: Report, finished: bool, stuck: bool) -> list[int]:
    """Clean up after a worker; the inputs that it leaves over."""
    if stuck:
        worker.process.kill()
    worker.process.join()
    worker.connection.close()
    if finished:
        return []
    if worker.current is None:
        raise RuntimeError(f"a worker ended with {worker.process.exitcode} between two inputs")
    what = "hangs where no signal reaches it" if stuck else f"ends its process with {worker.process.exitcode}"
    report.failures.append((worker.current, what))
    report.outcomes["failed"] += 1
    return worker.left[1:]


@click.command()
@click.option("--count", default=1000, show_default=True, type=click.IntRange(1), help="How many inputs.")
@click.option("--start", default=0, show_default=True, type=click.IntRange(0), help="Number of the first one.")
@click.option("--processes", default=os.cpu_count() or 1, show_default=True, type=click.IntRange(1))
@click.option("--keep", type=click.Path(file_okay=False, path_type=Path), help="Folder for the files that fail.")
def main(count: int, start: int, processes: int, keep: Path | None) -> None:
    """Read damaged model files; exit code 1 if one is not refused as it should be."""
    if keep is not None:
        keep.mkdir(parents=True, exist_ok=True)
        keep = keep.resolve()
    for name in MODELS:
        if check(path_of(name)) != "imported":
            sys.exit(f"{name} is refused as it is")
    with Progress() as bar:
        task = bar.add_task("inputs", total=count)
        report = run(list(range(start, start + count)), processes, keep, lambda: bar.advance(task))
    for number, what in report.failures:
        click.echo(f"input {number}: {what}\n")
    kinds = ", ".join(f"{number} {outcome}" for outcome, number in sorted(report.outcomes.items()))
    seconds, slow = report.slowest
    click.echo(f"{count} inputs: {kinds}; slowest {seconds:.2f} s (input {slow}); most memory {report.most_memory / 2**20:.0f} MiB")
    if report.failures:
        sys.exit(1)


if __name__ == "__main__":
    main()
