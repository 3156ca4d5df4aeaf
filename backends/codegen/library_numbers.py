"""Simple functions of numbers for generated C: signs, rounding, roots, quotients; and the C library's for single numbers.

Texts are written as in :mod:`irconv.backends.codegen.library_math`.
"""

from __future__ import annotations

from irconv.types import F32, F64, I8, I16, I32, I64, U8, U16, U32, U64, DType

Texts = tuple[str | None, str | None]
"""For scalars, for vectors."""

LIBM = ("tan", "asin", "acos", "atan", "sinh", "cosh", "asinh", "acosh", "atanh")
"""Functions taken from the C library, one number at a time."""


def templates() -> dict[tuple[str, DType], Texts]:
    """The texts of every function and element type."""
    found: dict[tuple[str, DType], Texts] = {}
    for dtype, suffix in ((F32, "f"), (F64, "")):
        found |= {(name, dtype): texts for name, texts in _floats(dtype, suffix).items()}
    for dtype in (I8, I16, I32, I64):
        found |= {("floor_divide", dtype): (_SIGNED_QUOTIENT, None), ("remainder", dtype): (_SIGNED_REMAINDER, None)}
    for dtype in (U8, U16, U32, U64):
        found |= {
            ("floor_divide", dtype): ("static inline $T irconv_floor_divide_$S($T x, $T y) { return y ? x / y : 0; }", None),
            ("remainder", dtype): ("static inline $T irconv_remainder_$S($T x, $T y) { return y ? x % y : 0; }", None),
            ("power", dtype): (_UNSIGNED_POWER, None),
        }
    for dtype in (I8, I16, I32, I64):
        found["power", dtype] = (_SIGNED_POWER, None)
    found["counting", U64] = (_scalar("counting", "x"), _COUNTING)
    found["multiply_words", U64] = (_WORDS_SCALAR, _words(0))
    for name, first in (("interleave_low", "0"), ("interleave_high", "$N / 2")):
        found[name, U64] = (None, _INTERLEAVE.replace("NAME", name).replace("FIRST", first))
    return found


def vector_templates() -> dict[str, Texts]:
    """Texts that differ between vectors, by name.type."""
    return {f"multiply_words.u64x{lanes}": (None, _words(lanes)) for lanes in _QUICK_WORDS}


def _floats(dtype: DType, suffix: str) -> dict[str, Texts]:
    sign = {F32: "0x80000000u", F64: "0x8000000000000000ull"}[dtype]
    found: dict[str, Texts] = {
        "absolute": _same("absolute", "$T x", f"$number($bits(x) & ~{sign})"),
        "copysign": _same("copysign", "$T x, $T y", f"$number(($bits(x) & ~{sign}) | ($bits(y) & {sign}))"),
        "sqrt": (_scalar("sqrt", f"__builtin_sqrt{suffix}(x)"), _lanes("sqrt", f"__builtin_sqrt{suffix}")),
        "power": (f"static inline $T irconv_power_$S($T x, $T y) {{ return __builtin_pow{suffix}(x, y); }}", None),
        "floor_divide": (_QUOTIENT.replace("$F", suffix), None),
        "remainder": (_REMAINDER.replace("$F", suffix), None),
    }
    whole = {F32: "0x1p23f", F64: "0x1p52"}[dtype]  # what is larger has no fraction
    nearest = f"(a + {whole}) - {whole}"
    r = f"  const $T a = $absolute(x), r = $copysign($select(a < {whole}, {nearest}, a), x);\n"
    for name, builtin, adjusted in (
        ("round", "rint", "r"),
        ("floor", "floor", "$select(r > x, r - $one, r)"),
        ("ceil", "ceil", "$copysign($select(r < x, r + $one, r), x)"),
    ):
        one = {F32: "1.0f", F64: "1.0"}[dtype]
        function = f"__builtin_{builtin}{suffix}"
        lines = (
            f"static inline $T irconv_{name}_$S($T x) {{",
            "#if defined(__SSE4_1__) || defined(__aarch64__)",
            f"  $T r; for (int i = 0; i < $N; i++) r[i] = {function}(x[i]); return r;",
            "#else",
            f"{r}  return {adjusted.replace('$one', one)};",
            "#endif",
            "}",
        )
        found[name] = (_scalar(name, f"{function}(x)"), "\n".join(lines))
    for name in LIBM:
        found[name] = (_scalar(name, f"__builtin_{name}{suffix}(x)"), None)
    return found


def _same(name: str, parameters: str, value: str) -> Texts:
    text = f"static inline $T irconv_{name}_$S({parameters}) {{ return {value}; }}"
    return text, text


def _scalar(name: str, value: str) -> str:
    return f"static inline $T irconv_{name}_$S($T x) {{ return {value}; }}"


def _lanes(name: str, builtin: str) -> str:
    """Lane by lane, which compilers turn into one instruction."""
    return (
        f"static inline $T irconv_{name}_$S($T x) "
        f"{{ $T r; for (int i = 0; i < $N; i++) r[i] = {builtin}(x[i]); return r; }}"
    )


# as NumPy: the quotient is (x - remainder) / y made whole, which differs from floor(x / y) where that rounds up
_QUOTIENT = """static inline $T irconv_floor_divide_$S($T x, $T y) {
  if (y == 0) return x / y;
  $T m = __builtin_fmod$F(x, y);
  $T d = (x - m) / y;
  if (m != 0 && (y < 0) != (m < 0)) d -= 1;
  if (d == 0) return __builtin_copysign$F(0, x / y);
  $T w = __builtin_floor$F(d);
  return d - w > ($T)0.5 ? w + 1 : w;
}"""
_REMAINDER = """static inline $T irconv_remainder_$S($T x, $T y) {
  $T m = __builtin_fmod$F(x, y);
  if (y == 0) return m;
  if (m == 0) return __builtin_copysign$F(0, y);
  return (y < 0) != (m < 0) ? m + y : m;
}"""
# by zero 0; by -1 without the overflow of the smallest number
_SIGNED_QUOTIENT = """static inline $T irconv_floor_divide_$S($T x, $T y) {
  if (y == 0) return 0;
  if (y == -1) return ($T)(0 - ($U)x);
  return x / y - (x % y != 0 && (x < 0) != (y < 0));
}"""
_SIGNED_REMAINDER = """static inline $T irconv_remainder_$S($T x, $T y) {
  if (y == 0 || y == -1) return 0;
  $T r = x % y;
  return r != 0 && (r < 0) != (y < 0) ? r + y : r;
}"""
_UNSIGNED_POWER = """static inline $T irconv_power_$S($T x, $T y) {
  uint64_t r = 1, b = x;
  for (; y; y >>= 1, b *= b) if (y & 1) r *= b;
  return ($T)r;
}"""
_SIGNED_POWER = """static inline $T irconv_power_$S($T x, $T y) {
  uint64_t r = 1, b = (uint64_t)x;
  for (; y > 0; y >>= 1, b *= b) if (y & 1) r *= b;
  return ($T)r;
}"""

_COUNTING = """static inline $T irconv_counting_$S($E x) {
  $T r; for (int i = 0; i < $N; i++) r[i] = x + (uint64_t)i; return r;
}"""
# the product of the lower halves, which processors have although they lack that of whole 64-bit numbers
_WORDS_SCALAR = "static inline $T irconv_multiply_words_$S($T x, $T y) { return (x & 0xffffffffu) * (y & 0xffffffffu); }"
_WORDS = """static inline $T irconv_multiply_words_$S($T x, $T y) {
$QUICK  return (x & 0xffffffffu) * (y & 0xffffffffu);
}"""
_QUICK_WORDS = {
    8: ("__AVX512F__", "__builtin_ia32_pmuludq512_mask(W x, W y, D {0}, (uint8_t)-1)"),
    4: ("__AVX2__", "__builtin_ia32_pmuludq256(W x, W y)"),
    2: ("__SSE2__", "__builtin_ia32_pmuludq128(W x, W y)"),
}
"""By lanes: the feature and the instruction."""


def _words(lanes: int) -> str:
    """The text for vectors of so many lanes."""
    if lanes not in _QUICK_WORDS:
        return _WORDS.replace("$QUICK", "")
    feature, text = _QUICK_WORDS[lanes]
    for letter, element in (("W", "int"), ("D", "long long")):
        text = text.replace(f"{letter} ", f"({element} __attribute__((vector_size({8 * lanes}))))")
    quick = f"#if defined({feature}) && !defined(__clang__)\n  return ($T){text};\n#endif\n"
    return _WORDS.replace("$QUICK", quick)


_INTERLEAVE = """static inline $T irconv_NAME_$S($T x, $T y) {
  $T r; for (int i = 0; i < $N / 2; i++) { r[2 * i] = x[FIRST + i]; r[2 * i + 1] = y[FIRST + i]; } return r;
}"""
