"""Transposing tiles for generated C: ``t[i * ts + j] = s[j * ss + i]``, as many i and j as a vector has lanes.

The rows of a tile are loaded, and log2(lanes) times the first half of them is interleaved with the second: each time the
bits of an element's number turn by one place, until those of row and column have changed places.

Texts are written as in :mod:`irconv.backends.codegen.library_math`.
"""

from __future__ import annotations

from irconv.types import F32, F64, U8, U16, U32, U64, DType

LANES = (2, 4, 8, 16)
"""Vectors for which there are tiles."""

PARAMETERS = "$E *t, int64_t ts, const $E *s, int64_t ss"
ELEMENTS = f"static inline void irconv_transpose_part_$S({PARAMETERS}, int64_t rows, int64_t columns) {{" + """
  for (int64_t i = 0; i < rows; i++) for (int64_t j = 0; j < columns; j++) t[i * ts + j] = s[j * ss + i];
}"""
"""For single elements: a tile of any size."""


def templates() -> dict[str, tuple[str | None, str | None]]:
    """Texts by name.element type, for vectors by name.type."""
    found: dict[str, tuple[str | None, str | None]] = {}
    for dtype in (U8, U16, U32, U64, F32, F64):
        found[f"transpose_part.{dtype}"] = (ELEMENTS, None)
    for dtype in (U32, U64, F32, F64):
        for lanes in LANES:
            found[f"transpose.{dtype}x{lanes}"] = (None, _whole(dtype, lanes))
            found[f"transpose_part.{dtype}x{lanes}"] = (None, _part(dtype, lanes))
    return found


def _whole(dtype: DType, lanes: int) -> str:
    loads = [f"  $T a{j} = *(const $Tu *)(s + {j} * ss);" for j in range(lanes)]
    network, names = _network(lanes)
    stores = [f"  *($Tu *)(t + {i} * ts) = {name};" for i, name in enumerate(names)]
    return "\n".join([f"static inline void irconv_transpose_$S({PARAMETERS}) {{", *loads, *network, *stores, "}"])


def _part(dtype: DType, lanes: int) -> str:
    loads = [f"  $T a{j} = {j} < columns ? $load_part(s + {j} * ss, rows) : ($T){{0}};" for j in range(lanes)]
    network, names = _network(lanes)
    stores = [f"  if ({i} < rows) $store_part(t + {i} * ts, {name}, columns);" for i, name in enumerate(names)]
    head = f"static inline void irconv_transpose_part_$S({PARAMETERS}, int64_t rows, int64_t columns) {{"
    return "\n".join([head, *loads, *network, *stores, "}"])


def _network(lanes: int) -> tuple[list[str], list[str]]:
    """Statements that interleave rows a0, a1, ..., and the names of the columns they end in."""
    names = [f"a{k}" for k in range(lanes)]
    half, lines = lanes // 2, []
    low = [n for k in range(half) for n in (k, lanes + k)]
    high = [n for k in range(half, lanes) for n in (k, lanes + k)]
    stage = 0
    while 1 << stage < lanes:
        stage += 1
        made = []
        for k in range(half):
            for part, order in (("l", low), ("h", high)):
                name = f"{part}{stage}_{k}"
                lines.append(f"  const $T {name} = $SHUFFLE({names[k]}, {names[k + half]}, {', '.join(map(str, order))});")
                made.append(name)
        names = made
    return lines, names


SHUFFLE = """#if defined(__clang__) || __GNUC__ >= 12
#define IRCONV_SHUFFLE_{s}(a, b, ...) __builtin_shufflevector(a, b, __VA_ARGS__)
#else
#define IRCONV_SHUFFLE_{s}(a, b, ...) __builtin_shuffle(a, b, ({m}){{__VA_ARGS__}})
#endif
"""
"""Two vectors' lanes in a given order, in the words of the compiler; stands before each function that uses it."""
