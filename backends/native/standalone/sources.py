"""The C files of a library, printed from its blueprint.

Names of models, nodes and paths are in comments only, made harmless; what the compiler reads are identifiers and numbers.
"""

from __future__ import annotations

from irconv.backends.codegen.c import PARAMETERS, harmless
from irconv.backends.native.runtime import PHASE
from irconv.backends.native.standalone.blueprint import Blueprint, Place, Row
from irconv.backends.native.standalone.interface import function, parameters, plain_names, title
from irconv.backends.native.standalone.text import rows, template
from irconv.backends.native.standalone.weights import WeightsFile

KINDS = ("PHASE", "COPY", "FINITE_F32", "FINITE_F64")
"""What runtime.c calls the kinds of steps."""

MACHINE_TESTS = {
    "avx512": ("avx512f", "avx512bw", "avx512dq", "avx512vl", "avx2", "fma"),
    "avx2": ("avx2", "fma"),
}
"""Features that a processor must have, as ``__builtin_cpu_supports`` knows them."""


def library_source(blueprint: Blueprint, weights: WeightsFile, embed: bool) -> str:
    """The tables of the program, and what runs them."""
    tables = _Tables(blueprint)
    name = blueprint.name
    values = {
        "name": name,
        "NAME": name.upper(),
        "title": title(blueprint),
        "machine": blueprint.machine.name,
        "machine_test": machine_test(blueprint.machine.name),
        "block_count": str(len(blueprint.blocks)),
        "call_count": str(len(blueprint.inputs) + len(blueprint.outputs)),
        "blocks": rows(f"{size}, // {harmless(what)}" for what, size in blueprint.blocks),
        "constants": _bytes(blueprint.constants),
        "header_bytes": str(len(weights.header)),
        "header_hash": str(weights.hash),
        "data_bytes": str(weights.data_bytes),
        "tensor_count": str(len(weights.tensors)),
        "tensors": rows(
            f"{{{t.place.region}, {t.place.offset}, {t.array.nbytes}, {at}}}, // {harmless(t.name)}" for t, at in weights.tensors
        ),
        "declarations": rows(
            f'HIDDEN void {function}({PARAMETERS});' for unit in blueprint.units for function in unit.functions.values()
        ).replace("    HIDDEN", "HIDDEN"),
        **tables.values,
        "function": function(blueprint),
        "parameters": parameters(blueprint, plain_names(blueprint)),
        "arguments": ", ".join(plain_names(blueprint)) or "NULL",
        "embedded": _embedded(name) if embed else "static const char *const embedded = NULL;",
    }
    training = template("training.c", {"name": name, "NAME": name.upper()}) if blueprint.trains else ""
    return template("library.c", values | {"training": training})


def machine_test(machine: str) -> str:
    """A C expression: whether the processor that runs it is such a machine."""
    return " && ".join(f'__builtin_cpu_supports("{feature}")' for feature in MACHINE_TESTS.get(machine, ())) or "1"


def _embedded(name: str) -> str:
    return f"extern HIDDEN const char {name}_weights[];\nstatic const char *const embedded = {name}_weights;"


def _bytes(content: bytes) -> str:
    content = content or b"\0"
    return rows(", ".join(str(byte) for byte in content[at : at + 32]) + "," for at in range(0, len(content), 32))


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
            "prepare": rows(prepare),
            "run": rows(run),
            "prepare_count": str(len(prepare)),
            "run_count": str(len(run)),
            "index_checks": rows(f"{i}," for i, row in enumerate(blueprint.run) if row.is_index_check),
            "index_check_count": str(sum(row.is_index_check for row in blueprint.run)),
            "pointer_count": str(self.pointers),
            "place_count": str(len(self.places)),
            "places": rows(self.places),
            "sizes": rows([*(f"{size}," for size in self.sizes), "0,"]),
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
