"""The processor that C is generated for, as data: vector registers and compiler flags."""

from __future__ import annotations

import os
import platform
from dataclasses import dataclass
from functools import cache

from irconv.errors import BackendError


@dataclass(frozen=True)
class Machine:
    """A processor as kernels see it.

    name:         "avx512", "avx2", "sse2", "neon" or "generic".
    vector_bytes: of a vector register.
    registers:    how many vector registers there are.
    flags:        what the compiler is told about it.
    is_local:     flags mean "the processor of this machine": what is compiled with them is of no use elsewhere.
    cache_bytes:  of a core's second-level cache, by which work is cut into blocks.
    """

    name: str
    vector_bytes: int
    registers: int
    flags: tuple[str, ...]
    is_local: bool = False
    cache_bytes: int = 1024 * 1024

    def lanes(self, element_bytes: int) -> int:
        """Elements of this size in one vector."""
        return max(1, self.vector_bytes // element_bytes)


AVX512 = ("-mavx512f", "-mavx512bw", "-mavx512dq", "-mavx512vl", "-mavx2", "-mfma", "-mf16c", "-mprefer-vector-width=512")
MACHINES: dict[str, Machine] = {
    "avx512": Machine("avx512", 64, 32, AVX512),
    "avx2": Machine("avx2", 32, 16, ("-mavx2", "-mfma", "-mf16c")),
    "sse2": Machine("sse2", 16, 16, ("-msse2",)),
    "neon": Machine("neon", 16, 32, ()),
    "generic": Machine("generic", 16, 16, ()),
}
"""Machines by name; all code is correct on "generic", which asks nothing of the compiler."""


def find_machine(name: str | None = None) -> Machine:
    """The machine of this name; by default ``IRCONV_MACHINE``, else "native": this machine's own processor.

    Raises BackendError listing the names there are.
    """
    name = name or os.environ.get("IRCONV_MACHINE", "").strip() or "native"
    if name == "native":
        return this_machine()
    if name not in MACHINES:
        raise BackendError(f"there is no machine {name!r}", hint=f"use native, {', '.join(MACHINES)}")
    return MACHINES[name]


@cache
def this_machine() -> Machine:
    """What this processor has, read from the operating system; "generic" where that says nothing."""
    architecture = platform.machine().lower()
    if architecture in ("arm64", "aarch64"):
        return Machine("neon", 16, 32, ("-mcpu=native",), True)
    if architecture not in ("x86_64", "amd64"):
        return MACHINES["generic"]
    features = _x86_features()
    if {"avx512f", "avx512bw", "avx512dq", "avx512vl"} <= features:
        return Machine("avx512", 64, 32, ("-march=native", "-mprefer-vector-width=512"), True, _cache_bytes())
    if {"avx2", "fma"} <= features:
        return Machine("avx2", 32, 16, ("-march=native",), True, _cache_bytes())
    return Machine("sse2", 16, 16, ("-march=native",), True, _cache_bytes())


def _x86_features() -> frozenset[str]:
    try:
        with open("/proc/cpuinfo", encoding="ascii", errors="replace") as lines:
            for line in lines:
                if line.startswith("flags"):
                    return frozenset(line.split(":", 1)[1].split())
    except OSError:
        pass
    return frozenset()


def _cache_bytes() -> int:
    """Size of the second-level cache, 1 MiB where the system does not say."""
    try:
        with open("/sys/devices/system/cpu/cpu0/cache/index2/size", encoding="ascii") as file:
            text = file.read().strip()
    except OSError:
        return 1024 * 1024
    units = {"K": 1024, "M": 1024 * 1024}
    number, unit = text[:-1], text[-1:]
    return int(number) * units[unit] if unit in units and number.isdigit() else 1024 * 1024
