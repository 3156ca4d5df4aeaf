"""The machines that kernels are tested for, and how much the compiler optimises them.

What is generated for this machine is compiled as users have it.  For other machines it is the generated text that differs, not
what the compiler makes of it, and GCC takes a third of the time to compile it with -Og.
"""

from __future__ import annotations

from dataclasses import replace

from irconv.backends.codegen.machine import MACHINES, Machine, this_machine


def hardly_optimised(machine: Machine) -> Machine:
    """The machine with code that takes little time to compile."""
    return replace(machine, flags=(*machine.flags, "-Og"))


TESTED: dict[str, Machine] = {
    name: machine if name == this_machine().name else hardly_optimised(machine) for name, machine in MACHINES.items()
}
