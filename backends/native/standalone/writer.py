"""Writes a library to a folder, and compiles it there."""

from __future__ import annotations

import platform
import shutil
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from irconv.backends.codegen.machine import Machine
from irconv.backends.native.compiler import FLAGS, TIMEOUT, Compiler, accepted, find_compiler, run, trimmed
from irconv.backends.native.describe import headed
from irconv.backends.native.standalone.blueprint import Blueprint
from irconv.backends.native.standalone.interface import header_source
from irconv.backends.native.standalone.program import embedded_source, main_source, makefile
from irconv.backends.native.standalone.sources import library_source
from irconv.backends.native.standalone.text import runtime_source
from irconv.backends.native.standalone.weights import WeightsFile, weights_file
from irconv.backends.numpy.parallel import thread_count
from irconv.errors import BackendError, ModelError

COMMON = tuple(flag for flag in FLAGS if flag != "-shared")
"""Flags for every file."""

ARCHITECTURES = {
    "avx512": ("x86_64", "amd64", "i686"),
    "avx2": ("x86_64", "amd64", "i686"),
    "sse2": ("x86_64", "amd64", "i686"),
    "neon": ("aarch64", "arm64"),
}
"""What compilers call the processors that a machine can be; machines that are not named are any."""


@dataclass(frozen=True)
class Files:
    """What lies in the folder, by paths relative to it."""

    folder: Path
    name: str
    kernels: tuple[str, ...]
    weights: str
    embed: bool


def write(blueprint: Blueprint, folder: Path, embed: bool) -> Files:
    """Write sources, weights and a Makefile.  Raises ModelError if they cannot be written."""
    name = blueprint.name
    weights = weights_file(blueprint.tensors)
    files = Files(folder, name, tuple(f"kernels/kernel{unit.number}" for unit in blueprint.units), f"{name}.safetensors", embed)
    try:
        _write(blueprint, files, weights)
    except OSError as error:
        raise ModelError(f"cannot write to {folder}: {error}", hint="give -o a folder that can be written") from None
    return files


def _write(blueprint: Blueprint, files: Files, weights: WeightsFile) -> None:
    folder, name = files.folder, files.name
    kernels = folder / "kernels"
    kernels.mkdir(parents=True, exist_ok=True)
    for stale in (*kernels.glob("kernel*.c"), *kernels.glob("kernel*.o")):
        stale.unlink()
    texts = {
        f"{name}.h": header_source(blueprint, files.weights, files.embed),
        f"{name}.c": library_source(blueprint, weights, files.embed),
        f"{name}_runtime.c": runtime_source(),
        f"{name}_main.c": main_source(blueprint, files.weights, files.embed),
        "Makefile": makefile(blueprint, COMMON, files.kernels, files.embed),
    }
    texts |= {
        f"{kernel}.c": headed(blueprint.graph, unit.kernels, unit.source)
        for kernel, unit in zip(files.kernels, blueprint.units, strict=True)
    }
    if files.embed:
        texts[f"{name}_weights.S"] = embedded_source(name, files.weights)
    for file, text in texts.items():
        (folder / file).write_text(text, encoding="utf-8")
    (folder / files.weights).write_bytes(weights.content)


def suits(compiler: Compiler, machine: Machine) -> bool:
    """Whether a compiler makes code for processors of this kind."""
    wanted = ARCHITECTURES.get(machine.name)
    status, said = run([*compiler.command, "-dumpmachine"], 60.0)
    made_for = (said.strip() if status == 0 and said.strip() else platform.machine()).split("-")[0].lower()
    return wanted is None or made_for in wanted


def compile_files(blueprint: Blueprint, files: Files, extra: Sequence[str] = ()) -> tuple[Path, ...]:
    """Compile to a static library, a shared one and a program; their paths.

    extra: further flags for every file, and for linking (for sanitizers, say).

    Raises BackendError where there is no compiler, it is for other processors, or it fails.
    """
    compiler = find_compiler()
    if not suits(compiler, blueprint.machine):
        raise BackendError(
            f"{compiler} does not make code for {blueprint.machine.name} processors",
            hint="name a cross compiler in IRCONV_CC, or take the sources there and run make",
        )
    builder = _Builder(compiler, files, tuple(extra))
    flags = blueprint.units[0].flags if blueprint.units else ()
    jobs: list[tuple[str, tuple[str, ...]]] = [(f"{kernel}.c", flags) for kernel in files.kernels]
    jobs += [(f"{files.name}.c", ("-pthread",)), (f"{files.name}_main.c", ("-pthread",))]
    if files.embed:
        jobs.append((f"{files.name}_weights.S", ()))
    with ThreadPoolExecutor(thread_count()) as workers:
        for done in [workers.submit(builder.compile, *job) for job in jobs]:
            done.result()
    return builder.link()


@dataclass(frozen=True)
class _Builder:
    """Runs the compiler in the folder."""

    compiler: Compiler
    files: Files
    extra: tuple[str, ...]

    def compile(self, source: str, flags: tuple[str, ...]) -> None:
        common = (*COMMON, *flags)
        if not self.compiler.is_gcc:
            common = accepted(self.compiler, common)
        if source.endswith(".S"):
            common = ("-fPIC",)
        target = str(Path(source).with_suffix(".o"))
        self.run([*self.compiler.command, *common, *self.extra, "-c", "-o", target, source], source)

    def link(self) -> tuple[Path, ...]:
        name, cc = self.files.name, self.compiler.command
        objects = [f"{name}.o", *(f"{kernel}.o" for kernel in self.files.kernels)]
        if self.files.embed:
            objects.append(f"{name}_weights.o")
        made = (f"lib{name}.a", f"lib{name}.so", f"{name}_main")
        (self.files.folder / made[0]).unlink(missing_ok=True)
        self.run([*_archiver(), "rcs", made[0], *objects], made[0])
        ends = (*self.extra, "-pthread", "-lm")
        stays = () if sys.platform == "darwin" else ("-Wl,-z,nodelete",)  # threads of the pool may be asleep in it
        self.run([*cc, "-shared", "-o", made[1], *objects, *stays, *ends], made[1])
        self.run([*cc, "-o", made[2], f"{name}_main.o", made[0], *ends], made[2])
        return tuple(self.files.folder / each for each in made)

    def run(self, command: Sequence[str], what: str) -> None:
        status, said = run(command, TIMEOUT, self.files.folder)
        if status != 0:
            message = trimmed(said) or f"it ended with status {status} and said nothing"
            raise BackendError(f"{command[0]} failed on {self.files.folder / what}:\n{message}")


def _archiver() -> tuple[str, ...]:
    """What makes static libraries.  Raises BackendError where there is nothing."""
    found = shutil.which("ar") or shutil.which("llvm-ar")
    if found is not None:
        return (found,)
    compiler = find_compiler().command
    if "ziglang" in compiler:
        return (*compiler[:-1], "ar")
    raise BackendError("there is no ar, which makes static libraries", hint="install binutils")
