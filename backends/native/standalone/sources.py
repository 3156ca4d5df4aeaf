"""The C files of a library, printed from its blueprint.

Names of models, nodes and paths are in comments only, made harmless; what the compiler reads are identifiers and numbers.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from string import Template

from irconv.backends.codegen.c import PARAMETERS, SCALARS, harmless
from irconv.backends.native.runtime import PHASE
from irconv.backends.native.standalone.blueprint import Argument, Blueprint, Place, Row, UnitFile
from irconv.backends.native.standalone.weights import WeightsFile
from irconv.kernel import print_kernel
from irconv.types import BOOL, DType

TEMPLATES = Path(__file__).parent
KINDS = ("PHASE", "COPY", "FINITE_F32", "FINITE_F64")
"""What runtime.c calls the kinds of steps."""

MACHINE_TESTS = {
    "avx512": ("avx512f", "avx512bw", "avx512dq", "avx512vl", "avx2", "fma"),
    "avx2": ("avx2", "fma"),
}
"""Features that a processor must have, as ``__builtin_cpu_supports`` knows them."""


def kernel_source(blueprint: Blueprint, unit: UnitFile) -> str:
    """A file of kernels, headed by their IR and the lines of the model that they come from."""
    lines = [line for kernel in unit.kernels for line in print_kernel(blueprint.graph, kernel).splitlines()]
    return "\n".join([*(f"// {harmless(line)}".rstrip() for line in lines), unit.source.lstrip("\n")])


def runtime_source() -> str:
    """The thread pool, which the library includes."""
    return (TEMPLATES.parent / "runtime.c").read_text(encoding="utf-8")


def _template(name: str, values: dict[str, str]) -> str:
    return Template((TEMPLATES / name).read_text(encoding="utf-8")).substitute(values)


def _rows(lines: Iterable[str]) -> str:
    return "".join(f"    {line}\n" for line in lines)


# --- the library -----------------------------------------------------------------------------------------------------------


def library_source(blueprint: Blueprint, weights: WeightsFile, embed: bool) -> str:
    """The tables of the program, and what runs them."""
    tables = _Tables(blueprint)
    name = blueprint.name
    values = {
        "name": name,
        "NAME": name.upper(),
        "title": _title(blueprint),
        "machine": blueprint.machine.name,
        "machine_test": machine_test(blueprint.machine.name),
        "block_count": str(len(blueprint.blocks)),
        "call_count": str(len(blueprint.inputs) + len(blueprint.outputs)),
        "blocks": _rows(f"{size}, // {harmless(what)}" for what, size in blueprint.blocks),
        "constants": _bytes(blueprint.constants),
        "header_bytes": str(len(weights.header)),
        "header_hash": str(weights.hash),
        "data_bytes": str(weights.data_bytes),
        "tensor_count": str(len(weights.tensors)),
        "tensors": _rows(
            f"{{{t.place.region}, {t.place.offset}, {t.array.nbytes}, {at}}}, // {harmless(t.name)}" for t, at in weights.tensors
        ),
        "declarations": _rows(
            f'HIDDEN void {function}({PARAMETERS});' for unit in blueprint.units for function in unit.functions.values()
        ).replace("    HIDDEN", "HIDDEN"),
        **tables.values,
        "function": _function(blueprint),
        "parameters": _parameters(blueprint, numbered=True),
        "arguments": ", ".join(_numbered(blueprint)) or "NULL",
        "embedded": _embedded(name) if embed else "static const char *const embedded = NULL;",
    }
    training = _template("training.c", {"name": name, "NAME": name.upper()}) if blueprint.trains else ""
    return _template("library.c", values | {"training": training})


def machine_test(machine: str) -> str:
    """A C expression: whether the processor that runs it is such a machine."""
    return " && ".join(f'__builtin_cpu_supports("{feature}")' for feature in MACHINE_TESTS.get(machine, ())) or "1"


def _title(blueprint: Blueprint) -> str:
    what = "A training step" if blueprint.trains else "A network"
    return f"{what}, {harmless(blueprint.graph.name).replace('*/', '* /')}, for {blueprint.machine.name} processors."


def _embedded(name: str) -> str:
    return f"extern HIDDEN const char {name}_weights[];\nstatic const char *const embedded = {name}_weights;"


def _bytes(content: bytes) -> str:
    content = content or b"\0"
    return _rows(", ".join(str(byte) for byte in content[at : at + 32]) + "," for at in range(0, len(content), 32))


def _function(blueprint: Blueprint) -> str:
    return f"{blueprint.name}_{'step' if blueprint.trains else 'run'}"


class _Tables:
    """Pointers, sizes and places, numbered as they come."""

    def __init__(self, blueprint: Blueprint):
        self.called = len(blueprint.blocks) + 1
        self.pointers = 0
        self.sizes: list[int] = []
        self.places: list[str] = []
        prepare = [self.row(row, with_call=False) for row in blueprint.prepare]
        run = [self.row(row, with_call=True) for row in blueprint.run]
        self.values = {
            "prepare": _rows(prepare),
            "run": _rows(run),
            "prepare_count": str(len(prepare)),
            "run_count": str(len(run)),
            "pointer_count": str(self.pointers),
            "place_count": str(len(self.places)),
            "places": _rows(self.places),
            "sizes": _rows([*(f"{size}," for size in self.sizes), "0,"]),
        }

    def row(self, row: Row, with_call: bool) -> str:
        """A step; arrays of a call do not exist while weights are prepared."""
        first = self.pointers
        for place in row.places:
            if with_call or place.region < self.called:
                self.place(place)
            self.pointers += 1
        sizes = len(self.sizes)
        self.sizes += row.sizes
        function = row.function if row.kind == PHASE else "0"
        return (f"{{{function}, pointers + {first}, sizes + {sizes}, {row.tasks}, {KINDS[row.kind]}}}, "
                f"// {harmless(row.comment)}")  # fmt: skip

    def place(self, place: Place) -> None:
        self.places.append(f"{{{self.pointers}, {place.region}, {place.offset}}},")


# --- the header ------------------------------------------------------------------------------------------------------------


def element(dtype: DType) -> str:
    """The C type of an argument's elements; halves are passed as their bits."""
    return "uint16_t" if dtype.name == "f16" else SCALARS[dtype.name]


def _numbered(blueprint: Blueprint) -> list[str]:
    return [f"in{i}" for i in range(len(blueprint.inputs))] + [f"out{i}" for i in range(len(blueprint.outputs))]


def _parameters(blueprint: Blueprint, numbered: bool = False) -> str:
    arguments = (*blueprint.inputs, *blueprint.outputs)
    names = _numbered(blueprint) if numbered else [argument.name for argument in arguments]
    constant = ["const "] * len(blueprint.inputs) + [""] * len(blueprint.outputs)
    parts = [f"{c}{element(a.type.dtype)} *{n}" for c, a, n in zip(constant, arguments, names, strict=True)]
    return ", ".join(parts) or "void"


def _described(argument: Argument) -> str:
    note = " (0 or 1)" if argument.type.dtype is BOOL else " (as bits)" if argument.type.dtype.name == "f16" else ""
    called = f", {harmless(argument.path)} of the model" if argument.path and argument.path != argument.name else ""
    return f" *   {argument.name:<12} {argument.type}{note}{called}".replace("*/", "* /")


def header_source(blueprint: Blueprint, weights_name: str, embed: bool) -> str:
    """What a program includes: the functions, their arguments and what they return."""
    name, upper = blueprint.name, blueprint.name.upper()
    guard = f"{upper}_H"
    arguments = [(f"{upper}_{a.name.upper()}_SIZE", a) for a in (*blueprint.inputs, *blueprint.outputs)]
    statuses = ("OK", "NOT_READY", "NO_FILE", "WRONG_FILE", "NO_MEMORY", "WRONG_MACHINE", "NOT_FINITE", "NOT_WRITTEN")
    where = f"NULL: those in the library, or the file {weights_name}" if embed else f"the file {weights_name}"
    lines = [
        f"/* {_title(blueprint)}",
        " *",
        " * Generated by irconv.  Needs libc, libm and POSIX threads.  Arrays are row-major, aligned to their elements, and do",
        " * not overlap.  All functions may be called from any thread; calls take turns.",
        " */",
        f"#ifndef {guard}",
        f"#define {guard}",
        "",
        "#include <stdint.h>",
        "",
        "#ifdef __cplusplus",
        'extern "C" {',
        "#endif",
        "",
        "/* Elements of each array. */",
        *(f"#define {macro} {argument.type.size}" for macro, argument in arguments),
        "",
        f"/* The most threads that a call uses; what it computes does not depend on their number. */\n#define {upper}_MAX_THREADS {blueprint.threads}",
        "",
        "/* What functions return. */",
        "enum {",
        *(f"    {upper}_{status} = {number}," for number, status in enumerate(statuses)),
        "};",
        "",
        "/* A status in words. */",
        f"const char *{name}_message(int status);",
        "",
        "/* Allocates memory, loads the weights and prepares them.  To be called first; called again, it starts over.",
        " *",
        f" *   weights      {where}",
        " *   threads      how many to use; 0: as many as there are cores",
        " */",
        f"int {name}_init(const char *weights, int threads);",
        "",
        *_call_lines(blueprint),
        *(_state_lines(name) if blueprint.trains else ()),
        "/* Gives memory back.  Threads stay asleep until the process ends. */",
        f"void {name}_free(void);",
        "",
        "#ifdef __cplusplus",
        "}",
        "#endif",
        "",
        "#endif",
        "",
    ]
    return "\n".join(lines)


def _call_lines(blueprint: Blueprint) -> list[str]:
    does = "One training step: computes the outputs, then changes the weights" if blueprint.trains else "Computes the outputs"
    fails = f"\n * {blueprint.name.upper()}_NOT_FINITE: the loss is not finite; no weight has been changed." if blueprint.trains else ""
    return [
        f"/* {does}.{fails}",
        " *",
        *(_described(argument) for argument in blueprint.inputs),
        *(_described(argument) + " (output)" for argument in blueprint.outputs),
        " */",
        f"int {_function(blueprint)}({_parameters(blueprint)});",
        "",
    ]


def _state_lines(name: str) -> list[str]:
    return [
        "/* Writes weights and all other states (moments, statistics, ...) to a safetensors file. */",
        f"int {name}_save(const char *file);",
        "",
        "/* Reads them back from such a file of the same network; NULL: those in the library. */",
        f"int {name}_load(const char *file);",
        "",
    ]


# --- the program and how to make it ----------------------------------------------------------------------------------------


def main_source(blueprint: Blueprint, weights_name: str, embed: bool) -> str:
    """A program that reads arrays from files and runs the library."""
    name, trains = blueprint.name, blueprint.trains
    arguments = [f"({'const ' if i < len(blueprint.inputs) else ''}{element(a.type.dtype)} *)"
                 for i, a in enumerate((*blueprint.inputs, *blueprint.outputs))]  # fmt: skip
    places = [f"in[{i}]" for i in range(len(blueprint.inputs))] + [f"out[{i}]" for i in range(len(blueprint.outputs))]
    call = ", ".join(f"{cast}{place}" for cast, place in zip(arguments, places, strict=True))
    save = (f"        const int saved = {name}_save(states);\n"
            f"        if (saved != {name.upper()}_OK) stop(states, {name}_message(saved));")  # fmt: skip
    values = {
        "name": name,
        "NAME": name.upper(),
        "input_count": str(len(blueprint.inputs)),
        "output_count": str(len(blueprint.outputs)),
        "inputs": _rows(map(_array, blueprint.inputs)),
        "outputs": _rows(map(_array, blueprint.outputs)),
        "call": f"{_function(blueprint)}({call})",
        "weights": "NULL" if embed else f'"{weights_name}"',
        "default_weights": "those in the program" if embed else weights_name,
        "usage": "".join(f"  input {a.name}: {a.type}\\n" for a in blueprint.inputs),
        "times_usage": "training steps, all on these arrays" if trains else "calls; the best time is told",
        "save_usage": " [-s STATES.safetensors]" if trains else "",
        "save_line": "  -s  where to save weights and other states\\n" if trains else "",
        "trains": "1" if trains else "0",
        "save": save if trains else "        (void)states;",
    }
    return _template("main.c", values)


def _array(argument: Argument) -> str:
    type_ = argument.type
    shape = f"({','.join(map(str, type_.shape))}{',' if type_.rank == 1 else ''})"
    return f'{{"{argument.name}", "{type_.dtype.numpy.newbyteorder("<").str}", "{shape}", {type_.bytes}, {type_.size}}},'


def embedded_source(name: str, weights_name: str) -> str:
    """The file of weights as part of the library: assembly, because compilers take long over large arrays."""
    return "\n".join(
        [
            "/* The weights, as they are in the file. */",
            "#if defined(__APPLE__)",
            "    .section __TEXT,__const",
            f"    .globl _{name}_weights",
            f"    .private_extern _{name}_weights",
            "    .p2align 6",
            f"_{name}_weights:",
            "#else",
            '    .section .rodata,"a"',
            f"    .globl {name}_weights",
            f"    .hidden {name}_weights",
            "    .p2align 6",
            f"{name}_weights:",
            "#endif",
            f'    .incbin "{weights_name}"',
            "#if defined(__ELF__)",
            '    .section .note.GNU-stack,"",%progbits',
            "#endif",
            "",
        ]
    )


def makefile(blueprint: Blueprint, common: Sequence[str], units: Sequence[str], embed: bool) -> str:
    """Builds the static library, the shared one and the program."""
    name = blueprint.name
    objects = [f"{name}.o", *(f"{unit}.o" for unit in units), *([f"{name}_weights.o"] if embed else [])]
    flags = blueprint.units[0].flags if blueprint.units else blueprint.machine.flags
    return "\n".join(
        [
            f"# Generated by irconv for {blueprint.machine.name} processors.  make CC=... AR=... for others than cc and ar.",
            f"FLAGS = {' '.join(common)}",
            f"MACHINE = {' '.join(flags)}",
            f"OBJECTS = {' '.join(objects)}",
            "",
            f"all: lib{name}.a lib{name}.so {name}_main",
            "",
            f"lib{name}.a: $(OBJECTS)",
            "\trm -f $@",
            "\t$(AR) rcs $@ $(OBJECTS)",
            "",
            f"lib{name}.so: $(OBJECTS)",
            "\t$(CC) -shared -o $@ $(OBJECTS) -Wl,-z,nodelete -pthread -lm",
            "",
            f"{name}_main: {name}_main.o lib{name}.a",
            f"\t$(CC) -o $@ {name}_main.o lib{name}.a -pthread -lm",
            "",
            f"{name}.o: {name}.h {name}_runtime.c",
            f"{name}_main.o: {name}.h",
            "",
            "kernels/%.o: kernels/%.c",
            "\t$(CC) $(FLAGS) $(MACHINE) $(CFLAGS) -c -o $@ $<",
            "",
            "%.o: %.c",
            "\t$(CC) $(FLAGS) $(CFLAGS) -pthread -c -o $@ $<",
            "",
            "%.o: %.S",
            "\t$(CC) -c -o $@ $<",
            "",
            "clean:",
            f"\trm -f lib{name}.a lib{name}.so {name}_main {name}_main.o $(OBJECTS)",
            "",
            ".PHONY: all clean",
            "",
        ]
    )
