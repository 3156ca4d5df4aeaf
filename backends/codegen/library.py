"""Functions that generated C may call, printed into a file where they are used.

Each is a template over the type it works on: ``{t}`` the C name of a scalar or vector type, ``{e}`` its element, ``{m}`` the mask
that comparing two gives, ``{n}`` lanes, ``{s}`` the suffix of the name.  All are free of branches, so that the compiler
can vectorise the scalar versions as well.  ``needs`` names other functions of the same type that have to stand before.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from irconv.backends.codegen.form import Type
from irconv.errors import BackendError


@dataclass(frozen=True)
class Source:
    """The text of a function for scalars and for vectors (None: it has no such version)."""

    scalar: str | None
    vector: str | None
    needs: tuple[str, ...] = ()


SOURCES: dict[str, Source] = {
    "splat": Source(None, "static inline {t} irconv_splat_{s}({e} x) {{ return ({t}){{{xs}}}; }}"),
    "select": Source(
        None,
        "static inline {t} irconv_select_{s}({m} c, {t} a, {t} b) {{ return ({t})((c & ({m})a) | (~c & ({m})b)); }}",
    ),
    # a masked move where the processor has one; a number known to the compiler makes memcpy a few moves
    "load_part": Source(
        "static inline {t} irconv_load_part_{s}(const {e} *p, int64_t n) {{ return n > 0 ? *p : 0; }}",
        "static inline {t} irconv_load_part_{s}(const {e} *p, int64_t n) {{\n"
        "{masked}"
        "  {t} v = {{0}};\n  __builtin_memcpy(&v, p, (uint64_t)n * sizeof({e}));\n  return v;\n{end}}}",
    ),
    "store_part": Source(
        "static inline void irconv_store_part_{s}({e} *p, {t} v, int64_t n) {{ if (n > 0) *p = v; }}",
        "static inline void irconv_store_part_{s}({e} *p, {t} v, int64_t n) {{\n"
        "{masked_store}"
        "  __builtin_memcpy(p, &v, (uint64_t)n * sizeof({e}));\n{end}}}",
    ),
    # the larger one; the second if either is NaN, as the processor's own instruction has it
    "larger": Source(
        "static inline {t} irconv_larger_{s}({t} a, {t} b) {{ return a > b ? a : b; }}",
        "static inline {t} irconv_larger_{s}({t} a, {t} b) {{ {t} r; "
        "for (int i = 0; i < {n}; i++) r[i] = a[i] > b[i] ? a[i] : b[i]; return r; }}",
    ),
    "smaller": Source(
        "static inline {t} irconv_smaller_{s}({t} a, {t} b) {{ return a < b ? a : b; }}",
        "static inline {t} irconv_smaller_{s}({t} a, {t} b) {{ {t} r; "
        "for (int i = 0; i < {n}; i++) r[i] = a[i] < b[i] ? a[i] : b[i]; return r; }}",
    ),
}
"""Functions by name."""


_IF_MASKED = "#if defined(__AVX512F__) && !defined(__clang__)\n"
MASKED_MOVES = {
    "masked": f"{_IF_MASKED}  return __builtin_ia32_loadups512_mask(p, (f32x16){{0}}, (uint16_t)((1u << n) - 1));\n#else\n",
    "masked_store": f"{_IF_MASKED}  __builtin_ia32_storeups512_mask(p, v, (uint16_t)((1u << n) - 1));\n#else\n",
    "end": "#endif\n",
}
NO_MASKED_MOVES = {"masked": "", "masked_store": "", "end": ""}


def definitions(used: Iterable[tuple[str, Type]]) -> list[str]:
    """The texts of the functions that were used and of what they need, each once, in an order that compiles."""
    done: dict[tuple[str, Type], str] = {}

    def visit(name: str, type_: Type) -> None:
        if (name, type_) in done:
            return
        source = SOURCES.get(name)
        text = source and (source.scalar if type_.lanes == 1 else source.vector)
        if source is None or text is None:
            raise BackendError(f"generated code has no function {name!r} for {type_}")
        for needed in source.needs:
            visit(needed, type_)
        done[name, type_] = fill(text, type_)

    for name, type_ in used:
        visit(name, type_)
    return list(done.values())


def fill(text: str, type_: Type) -> str:
    """The template for one type."""
    element = _element(type_)
    return text.format(
        t=element if type_.lanes == 1 else str(type_),
        e=element,
        m=str(type_.mask) if type_.lanes > 1 else "int",
        n=type_.lanes,
        s=str(type_),
        xs=", ".join("x" * type_.lanes),
        **(MASKED_MOVES if str(type_) == "f32x16" else NO_MASKED_MOVES),
    )


def _element(type_: Type) -> str:
    names = {"f16": "_Float16", "f32": "float", "f64": "double", "bool": "uint8_t"}
    return names.get(type_.dtype.name) or f"{type_.dtype.name.replace('i', 'int').replace('u', 'u' + 'int')}_t"
