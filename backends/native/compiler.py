"""The C compiler: which one, with which flags, and what it says when it fails.

``IRCONV_CC`` may name one, with arguments ("ccache gcc", "clang --target=..."); else the first of cc, gcc and clang on the
PATH; else the one in the ``ziglang`` wheel, for machines that have none.  No shell is involved.

The flags keep IEEE arithmetic as kernels are written for it: products and sums may be contracted into one instruction, errno
and trapping are of no interest, but nothing is reassociated.  Never -ffast-math: it changes the whole process.
"""

from __future__ import annotations

import importlib.util
import os
import platform
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from irconv.errors import BackendError

FLAGS = (
    "-O3",
    "-std=gnu11",
    "-fPIC",
    "-shared",
    "-ffp-contract=fast",
    "-fno-math-errno",
    "-fno-trapping-math",
    "-fvisibility=hidden",
)
"""What every unit is compiled with, before the flags of its machine."""

TIMEOUT = 600.0
"""Seconds after which a compiler is given up."""

SHOWN_LINES, SHOWN_WIDTH = 12, 300
"""How much of a compiler's message an error repeats."""

INSTALL = "install gcc or clang, run `pip install irconv[native]`, or name a compiler in IRCONV_CC"


@dataclass(frozen=True)
class Compiler:
    """A C compiler that can be started.

    command: the program and its leading arguments.
    version: the first line of what ``--version`` says.
    stamp:   size and time of change of the program: another compiler under the same name is another compiler.
    is_gcc:  whether all flags are taken for granted; other compilers are asked.
    """

    command: tuple[str, ...]
    version: str
    stamp: str
    is_gcc: bool = True

    @property
    def identity(self) -> str:
        """What code compiled by it depends on."""
        return "\n".join((*self.command, self.version, self.stamp, platform.machine()))

    def __str__(self) -> str:
        return f"{shlex.join(self.command)}: {self.version}"

    def compile(self, source: Path, target: Path, flags: Sequence[str], timeout: float = TIMEOUT) -> str | None:
        """Make a shared library of a C file; returns what the compiler says if it fails, else None."""
        flags = (*FLAGS, *flags)
        if not self.is_gcc:
            flags = accepted(self, flags)
        status, output = run([*self.command, *flags, "-o", str(target), str(source), "-lm"], timeout)
        if status == 0 and target.exists():
            return None
        return trimmed(output) or f"it ended with status {status} and said nothing"


def run(command: Sequence[str], timeout: float, folder: Path | None = None) -> tuple[int, str]:
    """Run a program (in a folder) to its end: status and what it printed.  Status -1, with the reason, where it cannot be run."""
    environment = {**os.environ, "LC_ALL": "C"}
    try:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env=environment,
            cwd=folder,
            start_new_session=True,  # so that what it starts can be ended with it
        )
    except (OSError, ValueError) as error:
        return -1, f"{command[0]} cannot be started: {error}"
    try:
        output, _ = process.communicate(timeout=timeout)
    except subprocess.TimeoutExpired:
        _end(process)
        return -1, f"no end after {timeout:g} seconds"
    except BaseException:
        _end(process)
        raise
    return process.returncode, output.decode("utf-8", "replace")


def _end(process: subprocess.Popen[bytes]) -> None:
    """End a process and what it started."""
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except OSError:  # gone already
        process.kill()
    process.wait()


def trimmed(message: str) -> str:
    """The beginning of a compiler's message, where the first error is."""
    lines = [line[:SHOWN_WIDTH] for line in message.strip().splitlines() if line.strip()]
    more = len(lines) - SHOWN_LINES
    return "\n".join(lines[:SHOWN_LINES] + ([f"... and {more} more lines"] if more > 0 else []))


def find_compiler() -> Compiler:
    """The compiler to use.  Raises BackendError, which says what to install, if there is none."""
    return _find(os.environ.get("IRCONV_CC", "").strip(), os.environ.get("PATH", ""))


@lru_cache(maxsize=16)
def _find(named: str, path: str) -> Compiler:
    """Found once for a setting; ``path`` is only part of what the answer depends on."""
    if named:
        return _named(named)
    reasons = []
    for command in _candidates():
        found = _started(command)
        if isinstance(found, Compiler):
            return found
        reasons.append(found)
    raise BackendError(f"there is no C compiler ({'; '.join(reasons) or 'no cc, gcc or clang on the PATH'})", hint=INSTALL)


def _named(named: str) -> Compiler:
    """The compiler of ``IRCONV_CC``."""
    try:
        command = shlex.split(named)
    except ValueError as error:
        raise BackendError(f"IRCONV_CC={named!r} is not a command: {error}", hint=INSTALL) from None
    program = shutil.which(command[0])
    if program is None:
        raise BackendError(f"IRCONV_CC={named!r}: there is no program {command[0]!r}", hint=INSTALL)
    found = _started((program, *command[1:]))
    if isinstance(found, str):
        raise BackendError(f"IRCONV_CC={named!r}: {found}", hint=INSTALL)
    return found


def _candidates() -> list[tuple[str, ...]]:
    programs = (shutil.which(name) for name in ("cc", "gcc", "clang"))
    found: list[tuple[str, ...]] = [(program,) for program in programs if program is not None]
    if importlib.util.find_spec("ziglang") is not None:
        found.append((sys.executable, "-m", "ziglang", "cc"))
    return found


def _started(command: tuple[str, ...]) -> Compiler | str:
    """The compiler behind a command, or why it is none."""
    status, output = run([*command, "--version"], 60.0)
    lines = output.strip().splitlines()
    if status != 0 or not lines:
        return f"{shlex.join(command)} --version says {lines[0] if lines else 'nothing'!r} (status {status})"
    program = os.stat(os.path.realpath(command[0]))
    is_gcc = "Free Software Foundation" in output
    return Compiler(command, lines[0], f"{program.st_size} {program.st_mtime_ns}", is_gcc)


@lru_cache(maxsize=64)
def accepted(compiler: Compiler, flags: tuple[str, ...]) -> tuple[str, ...]:
    """The flags that a compiler knows: those of GCC that change only speed mean nothing to some others."""
    with tempfile.TemporaryDirectory(prefix="irconv-") as folder:
        source, target = Path(folder) / "probe.c", Path(folder) / "probe.so"
        source.write_text("int irconv_probe(int x) { return x + 1; }\n", encoding="ascii")

        def knows(*tried: str) -> bool:
            return run([*compiler.command, *tried, "-o", str(target), str(source)], 120.0)[0] == 0

        if knows(*flags):
            return flags
        return tuple(flag for flag in flags if knows("-shared", "-fPIC", flag))


@lru_cache(maxsize=64)
def knows_float16(compiler: Compiler, flags: tuple[str, ...]) -> bool:
    """Whether a compiler has the type ``_Float16`` for the machine of these flags: on x86 GCC 12 and Clang 15 are the first."""
    with tempfile.TemporaryDirectory(prefix="irconv-") as folder:
        source, target = Path(folder) / "probe.c", Path(folder) / "probe.so"
        source.write_text("_Float16 irconv_probe(float x) { return (_Float16)x; }\n", encoding="ascii")
        return compiler.compile(source, target, flags, 120.0) is None


@lru_cache(maxsize=1)
def processor() -> str:
    """This machine's processor: what code compiled for "native" is good for."""
    lines = set()
    try:
        with open("/proc/cpuinfo", encoding="ascii", errors="replace") as file:
            for line in file:
                if line.split(":")[0].strip() in ("vendor_id", "cpu family", "model", "model name", "stepping", "flags",
                                                  "CPU implementer", "CPU part", "Features"):  # fmt: skip
                    lines.add(line.strip())
    except OSError:
        lines.add(f"{platform.machine()} {platform.processor()}")
    return "\n".join(sorted(lines))
