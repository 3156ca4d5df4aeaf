"""How long ``import irconv`` takes in a fresh process, beside NumPy and networkx alone.

    python tests/benchmarks/import_time.py [--repeat 10]

Bytecode is cached, as it is for an installed package.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile

import click
import tables

STATEMENTS = ("import numpy", "import numpy, networkx", "import irconv", "import irconv.nn, irconv.optim")


def seconds(statement: str, cache: str) -> float:
    """Time that a statement takes in a new interpreter, without the interpreter's own start."""
    code = f"import time; start = time.perf_counter(); {statement}; print(time.perf_counter() - start)"
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"} | {"PYTHONPYCACHEPREFIX": cache}
    ran = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True, cwd=cache)
    return float(ran.stdout)


@click.command()
@click.option("--repeat", default=10, show_default=True, type=click.IntRange(1))
def main(repeat: int) -> None:
    """Measure import times."""
    with tempfile.TemporaryDirectory() as cache:
        for statement in STATEMENTS:
            seconds(statement, cache)  # fills the cache of bytecode
        times = {statement: [] for statement in STATEMENTS}
        for _ in range(repeat):
            for statement in STATEMENTS:
                times[statement].append(seconds(statement, cache))
    cells = [[s, f"{1e3 * min(t):.0f}", f"{1e3 * sorted(t)[len(t) // 2]:.0f}"] for s, t in times.items()]
    tables.show(f"import time, {repeat} fresh processes", ("statement", "best ms", "median ms"), cells)


if __name__ == "__main__":
    main()
