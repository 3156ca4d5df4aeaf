"""The process of one side, asked over pipes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import threading
from pathlib import Path
from typing import IO, Any, Self

THREAD_SETTINGS = ("IRCONV_NUM_THREADS", "OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS")
"""Environment variables by which libraries learn how many threads to use."""

ANSWER_SECONDS = 900.0
"""How long one answer may take: tuning compilers take minutes."""


class SideError(Exception):
    """A side failed; the message is its own, on one line or several."""


class Process:
    """One side (the name of a module of :mod:`irconv.bench.sides`) in a process of its own."""

    def __init__(self, side: str, threads: int, environment: dict[str, str] | None = None, limit: float = ANSWER_SECONDS):
        self._limit = limit
        self._late = False
        self._noise: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115  # closed with the process
        command = [sys.executable, "-m", "irconv.bench.worker", side, str(threads)]
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._noise,
            text=True,
            env={**os.environ, **dict.fromkeys(THREAD_SETTINGS, str(threads)), **(environment or {})},
        )
        try:
            self._read()  # an empty answer once everything is imported
        except BaseException:
            self.close()
            raise

    def ask(self, do: str, **more: Any) -> dict[str, Any]:
        """Send a command and wait for its answer.  SideError if it fails, ends the process, or takes too long."""
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(json.dumps({"do": do, **more}) + "\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            raise SideError(self._ended()) from None
        return self._read()

    def _read(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        timer = threading.Timer(self._limit, self._give_up)
        timer.start()
        try:
            line = self._process.stdout.readline()
        finally:
            timer.cancel()
        if not line:
            raise SideError(self._ended())
        answer: dict[str, Any] = json.loads(line)
        if "error" in answer:
            raise SideError(answer["error"])
        return answer

    def _give_up(self) -> None:
        self._late = True
        self._process.kill()

    def _ended(self) -> str:
        """Why there is no answer."""
        if self._late:
            return f"no answer within {self._limit:.0f} seconds"
        status = self._process.wait()
        self._noise.seek(0)
        lines = self._noise.read().decode(errors="replace").strip().splitlines()
        return f"the process ended with status {status}" + (f": {lines[-1]}" if lines else "")

    def close(self) -> None:
        """End the process."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        try:
            self._process.stdin.close()
            self._process.wait(timeout=10)
        except (BrokenPipeError, subprocess.TimeoutExpired):
            self._process.kill()
            self._process.wait()
        self._process.stdout.close()
        self._noise.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()


def scratch_environment(folder: Path) -> dict[str, str]:
    """Settings that make compilers start without what they remember from earlier runs."""
    return {"TORCHINDUCTOR_CACHE_DIR": str(folder / "inductor"), "IRCONV_CACHE": str(folder / "irconv")}
