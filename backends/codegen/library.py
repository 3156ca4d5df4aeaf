"""Functions that generated C may call, printed into a file where they are used.

Each is a template over the type it works on: ``{t}`` the C name of a scalar or vector type, ``{e}`` its element, ``{m}`` the mask
that comparing two gives, ``{n}`` lanes, ``{s}`` the suffix of the name.  All are free of branches, so that the compiler
can vectorise the scalar versions as well.  ``needs`` names other functions of the same type that have to stand before.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from irconv.backends.codegen import library_math, library_numbers, library_tiles
from irconv.backends.codegen.form import Type
from irconv.backends.codegen.library_moves import masked_moves
from irconv.backends.codegen.library_numbers import Texts
from irconv.errors import BackendError


@dataclass(frozen=True)
class Source:
    """The text of a function for scalars and for vectors (None: it has no such version)."""

    scalar: str | None
    vector: str | None
    needs: tuple[str, ...] = ()


SOURCES: dict[str, Source] = {
    "splat": Source(
        "static inline {t} irconv_splat_{s}({e} x) {{ return x; }}",
        "static inline {t} irconv_splat_{s}({e} x) {{ return ({t}){{{xs}}}; }}",
    ),
    "select": Source(
        "static inline {t} irconv_select_{s}(int c, {t} a, {t} b) {{ return c ? a : b; }}",
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
    # the address is kept from the compiler's analysis: GCC 12 spent 11 s on the 512 addresses of 32 gathers in one loop
    "gather": Source(
        None,
        "static inline {t} irconv_gather_{s}(const {e} *p, int64_t stride) {{ {t} r; "
        '__asm__("" : "+r"(p)); for (int i = 0; i < {n}; i++) r[i] = p[i * stride]; return r; }}',
    ),
    "gather_part": Source(
        None,
        "static inline {t} irconv_gather_part_{s}(const {e} *p, int64_t stride, int64_t n) {{ {t} r = {{0}}; "
        "for (int64_t i = 0; i < n; i++) r[i] = p[i * stride]; return r; }}",
    ),
    # the larger one; the second if either is NaN, as the processor's own instruction has it
    "larger": Source(
        "static inline {t} irconv_larger_{s}({t} a, {t} b) {{ return a > b ? a : b; }}",
        "static inline {t} irconv_larger_{s}({t} a, {t} b) {{\n"
        "{quick_max}"
        "  const {m} c = ({m})(a > b);\n  return ({t})((c & ({m})a) | (~c & ({m})b));\n{end_max}}}",
    ),
    "smaller": Source(
        "static inline {t} irconv_smaller_{s}({t} a, {t} b) {{ return a < b ? a : b; }}",
        "static inline {t} irconv_smaller_{s}({t} a, {t} b) {{\n"
        "{quick_min}"
        "  const {m} c = ({m})(a < b);\n  return ({t})((c & ({m})a) | (~c & ({m})b));\n{end_min}}}",
    ),
    # the same bits as an unsigned number, and back
    "bits": Source(
        "static inline {u} irconv_bits_{s}({t} x) {{ return ((union {{ {t} from; {u} to; }}){{x}}).to; }}",
        "static inline {u} irconv_bits_{s}({t} x) {{ return ({u})x; }}",
    ),
    "number": Source(
        "static inline {t} irconv_number_{s}({u} x) {{ return ((union {{ {u} from; {t} to; }}){{x}}).to; }}",
        "static inline {t} irconv_number_{s}({u} x) {{ return ({t})x; }}",
    ),
}
"""Functions by name; one for a single element type by ``name.type``."""


_PLACES = {"T": "t", "E": "e", "M": "m", "N": "n", "S": "s", "U": "u", "I": "i"}


def _from_texts(texts: Texts) -> Source:
    """Texts with $T, $S, ... as templates; the functions that ``$name(`` calls have to stand before."""
    needs: dict[str, None] = {}

    def template(text: str | None) -> str | None:
        if text is None:
            return None
        text = text.replace("{", "{{").replace("}", "}}")
        called = dict.fromkeys(re.findall(r"\$([a-z_0-9]+)\(", text))
        needs.update(called)
        if "$SHUFFLE(" in text:
            needs["shuffle"] = None
            text = text.replace("$SHUFFLE(", "IRCONV_SHUFFLE_{s}(")
        text = re.sub(r"\$([a-z_0-9]+)\(", r"irconv_\1_{s}(", text)
        return re.sub(r"\$([TEMNSUI])(?![A-Za-tv-z])", lambda found: f"{{{_PLACES[found.group(1)]}}}", text)

    scalar, vector = template(texts[0]), template(texts[1])
    return Source(scalar, vector, tuple(needs))


SOURCES.update(
    (f"{name}.{dtype}", _from_texts(texts))
    for part in (library_numbers.templates(), library_math.templates())
    for (name, dtype), texts in part.items()
)
SOURCES["shuffle"] = Source(None, library_tiles.SHUFFLE)
SOURCES.update(
    (name, _from_texts(texts))
    for part in (library_numbers.vector_templates(), library_tiles.templates())
    for name, texts in part.items()
)


_EXTREMA = {
    "f32x16": ("__AVX512F__", "{0}ps512_mask(a, b, a, (uint16_t)-1, 4)"),
    "f64x8": ("__AVX512F__", "{0}pd512_mask(a, b, a, (uint8_t)-1, 4)"),
    "f32x8": ("__AVX__", "{0}ps256(a, b)"),
    "f64x4": ("__AVX__", "{0}pd256(a, b)"),
    "f32x4": ("__SSE2__", "{0}ps(a, b)"),
    "f64x2": ("__SSE2__", "{0}pd(a, b)"),
}
"""For each type the feature and the instruction that compares and selects in one; GCC does not find it by itself."""


def _extrema(type_: Type) -> dict[str, str]:
    """The one-instruction versions of larger and smaller."""
    feature, text = _EXTREMA.get(str(type_), ("", ""))
    lines: dict[str, str] = {}
    for name in ("max", "min"):
        quick = f"#if defined({feature}) && !defined(__clang__)\n  return __builtin_ia32_{text.format(name)};\n#else\n"
        lines |= {f"quick_{name}": quick if text else "", f"end_{name}": "#endif\n" if text else ""}
    return lines


def definitions(used: Iterable[tuple[str, Type]]) -> list[str]:
    """The texts of the functions that were used and of what they need, each once, in an order that compiles."""
    done: dict[tuple[str, Type], str] = {}

    def visit(name: str, type_: Type) -> None:
        if (name, type_) in done:
            return
        source = next((SOURCES[n] for n in (f"{name}.{type_}", f"{name}.{type_.dtype}", name) if n in SOURCES), None)
        text = None if source is None else source.scalar if type_.lanes == 1 else source.vector
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
        t=_c_name(type_),
        e=element,
        m=str(type_.mask) if type_.lanes > 1 else "int",
        u=_c_name(type_.unsigned),
        i=str(type_.mask) if type_.lanes > 1 else f"int{8 * type_.dtype.bytes}_t",
        n=type_.lanes,
        s=str(type_),
        xs=", ".join("x" * type_.lanes),
        **masked_moves(type_),
        **_extrema(type_),
    )


def _c_name(type_: Type) -> str:
    return _element(type_) if type_.lanes == 1 else str(type_)


def _element(type_: Type) -> str:
    names = {"f16": "_Float16", "f32": "float", "f64": "double", "bool": "uint8_t"}
    return names.get(type_.dtype.name) or f"{type_.dtype.name.replace('i', 'int').replace('u', 'u' + 'int')}_t"
