"""Kernels made of other kernels' phases, which run one after the other with temporaries between them.

Each part keeps its source, under names of its own, and its run-time sizes; a small function for each of its phases hands it the
buffers that it is to see.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

from irconv.backends.codegen.c import PARAMETERS
from irconv.backends.native.base import EXPORT, Check, NativeKernel, Phase, Prepared, native_kernel
from irconv.types import TensorType

DEFINITION = re.compile(r"\bvoid (\w+)\(void \*const \*buffers")
"""Where a function begins that could be a phase."""

LIBRARY = re.compile(r"\birconv_(\w+)")
"""What the functions are called that a source brings along."""


@dataclass(frozen=True)
class Part:
    """A kernel in another one.  buffers: for each of its outputs and operands, the position among the whole kernel's buffers."""

    kernel: NativeKernel
    buffers: tuple[int, ...]


def composed(parts: Sequence[Part], border: int, temporaries: Sequence[TensorType], outputs: int) -> NativeKernel | None:
    """One kernel of several, in this order; None where more than one looks at its operands first.

    border: how many outputs and operands the whole kernel has, ``outputs`` of the first kind; its buffers behind them are the
    temporaries, then the scratch of the parts.
    """
    scratch, sizes = list(temporaries), list[int]()
    phases, prepared, checks, texts = list[Phase](), list[Prepared](), list[Check](), list[str]()
    for number, part in enumerate(parts):
        made, first, before = part.kernel, len(scratch), len(phases)
        buffers = [*part.buffers, *(border + first + at for at in range(len(made.scratch)))]
        scratch += made.scratch
        texts.append(named_apart(made.source, number))
        texts += [_handing(name, number, buffers, len(sizes)) for name in dict.fromkeys(p.function for p in made.phases)]
        phases += [Phase(f"{phase.function}_{number}", phase.tasks) for phase in made.phases]
        prepared += [
            Prepared(part.buffers[each.operand], buffers[each.scratch], before + each.phase)
            for each in made.prepared
            if outputs <= part.buffers[each.operand] < border
        ]
        if made.check is not None:
            checks.append(replace(made.check, phase=before + made.check.phase, scratch=first + made.check.scratch))
        sizes += made.sizes
    if len(checks) > 1:
        return None
    check = checks[0] if checks else None
    machine = next((part.kernel.machine for part in parts if part.kernel.machine is not None), None)
    return native_kernel(
        "\n".join(texts), tuple(phases), tuple(sizes), tuple(scratch), machine=machine, prepared=tuple(prepared), check=check
    )


def named_apart(source: str, number: int) -> str:
    """The source with a number in the names of its functions: ``f`` becomes ``f_of_<number>``."""
    for name in dict.fromkeys(DEFINITION.findall(source)):
        source = re.sub(rf"\b{re.escape(name)}\b", f"{name}_of_{number}", source)
    return LIBRARY.sub(rf"irconv_\1_of_{number}", source)


def _handing(name: str, number: int, buffers: Sequence[int], sizes: int) -> str:
    """A phase that calls a part's with the buffers and sizes that it knows."""
    own = ", ".join(f"buffers[{slot}]" for slot in buffers)
    return (
        f"{EXPORT} void {name}_{number}({PARAMETERS}) {{\n"
        f"  void *const own[] = {{{own}}};\n"
        f"  {name}_of_{number}(own, sizes + {sizes}, first, last, worker);\n"
        "}\n"
    )
