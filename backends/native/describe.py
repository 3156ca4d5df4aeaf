"""Generated code as people read it: under the IR of its kernel and the lines of the model that it comes from."""

from __future__ import annotations

from collections.abc import Iterable

from irconv.backends.codegen.c import harmless
from irconv.graph import Graph
from irconv.kernel import Kernel, print_kernel


def headed(graph: Graph, kernels: Iterable[Kernel], source: str) -> str:
    """The source of these kernels under a comment with their IR.

    The compiler gets sources without it: layers that do the same share a unit, whatever they are called.
    """
    lines = (line for kernel in kernels for line in print_kernel(graph, kernel).splitlines())
    return "\n".join([*(f"// {harmless(line)}".rstrip() for line in lines), source.lstrip("\n")])
