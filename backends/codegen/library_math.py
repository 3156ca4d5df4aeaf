"""Exponentials, logarithms, the error function and trigonometry for generated C, from arithmetic alone.

One text serves scalars and vectors, float32 and float64; they are free of branches and right for -0, NaN, infinities and
subnormal numbers.  Largest errors, in units in the last place of the result, as measured, with and without fused multiply-add:

======== ======== =========
function float32  float64
======== ======== =========
exp      1.2      1
expm1    2        2
log      1        1
log1p    2        2
tanh     2        2
sigmoid  3        3  (a result below the smallest normal number may be 0)
erf      2        2
sin, cos 3        3  (beyond 10,000 for float32 and 1,000,000 for float64: the C library's, number by number)
======== ======== =========

In the texts ``$T`` is the type, ``$E`` its element, ``$M`` what comparing gives, ``$U`` and ``$I`` its bits as unsigned and
signed numbers, ``$N`` its lanes, ``$S`` the suffix of names, ``$name(`` another function of the library for the same type, and
what else begins with $ a constant of :data:`CONSTANTS`.

Compilers may fuse a multiplication with an addition (-ffp-contract=fast): every step stays right when they do, because products
that have to be exact are exact (constants with trailing zeros) and sums that cancel have no product in them.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from irconv.types import F32, F64, DType


@dataclass(frozen=True)
class Text:
    """A function before constants are put in.

    body:   of ``$T irconv_name_$S(parameters)``.
    vector: a last part for vectors only; scalar: for scalars only.
    """

    name: str
    parameters: str
    body: str
    result: str = "$T"
    vector: str = ""
    scalar: str = ""


# e^x = 2^n e^r with n the integer nearest to x / ln 2; adding $MAGIC rounds, and leaves n in the lowest bits
_REDUCE = """
  const $T t = c * $LOG2E + $MAGIC;
  const $T n = t - $MAGIC;
  const $T r = (c - n * $LN2_HI) - n * $LN2_LO;
  const $T p = r + r * r * $exp_series(r);
  const $I i = ($I)($bits(t) - $bits($splat($MAGIC)));"""

# the logarithm of 2^e m, with m = 1 + f between sqrt(1/2) and sqrt(2)
_SPLIT = """
  const $M tiny = u < $LEAST;
  const $U w = $bits($select(tiny, u * $RAISE, u)) - $bits($splat($ROOT_HALF));
  const $I i = ($I)w >> $FRACTION;
  const $T e = ($number($bits($splat($MAGIC)) + ($U)i) - $MAGIC) - $select(tiny, $splat($RAISED), $splat(0));
  const $T m = $number((w & $FRACTION_BITS) + $bits($splat($ROOT_HALF)));"""
_SERIES = {
    F32: """
  $T y = f * f * (f * $log_series(f) - $HALF);
  y = ((y + e * $LN2_LO) + f) + e * $LN2_HI;""",
    F64: """
  const $T s = f / (f + $TWO), z = s * s, h = f * f * $HALF;
  $T y = e * $LN2_HI - ((h - (s * (h + z * $log_series(z)) + e * $LN2_LO)) - f);""",
}
_LOG_ENDS = """
  y = $select(u == $ZERO, $splat(-$INFINITY), y);
  y = $select(u < $ZERO, $splat($NAN), y);
  return $select(u < $INFINITY, y, u);"""

# x = n pi/2 + r: the four parts of pi/2 times n are exact but for the last
_QUADRANT = """
  const $T t = x * $TWO_BY_PI + $MAGIC;
  const $T n = t - $MAGIC;
  const $T r = $REDUCED, z = r * r, h = z * $HALF, w = $ONE - h;
  const $U q = $bits(t) - $bits($splat($MAGIC)){offset};
  const $T sine = r + r * z * $sin_series(z);
  const $T cosine = w + ((($ONE - w) - h) + z * z * $cos_series(z));
  const $T chosen = $select(($M)((q & 1) != 0), cosine, sine);
  const $T y = {ends};"""
_FLIPPED = "$number($bits(chosen) ^ ((q & 2) << ($WIDTH - 2)))"
_LANES = """
  const $T a = $absolute(x);
  $T v = y;
  int far = 0;
  for (int i = 0; i < $N; i++) far |= !(a[i] <= $FAR);
  if (far) for (int i = 0; i < $N; i++) if (!(a[i] <= $FAR)) v[i] = $LIBM_{name}(x[i]);
  return v;"""
_ONE = "\n  return $absolute(x) <= $FAR ? y : $LIBM_{name}(x);"

TEXTS: tuple[Text, ...] = (
    Text("power_of_two", "$I n", "\n  return $number(($U)(n + $BIAS) << $FRACTION);"),
    Text(
        "exp",
        "$T x",
        "\n  const $T c = $larger($splat($EXP_LOW), $smaller($splat($EXP_HIGH), x));"
        + _REDUCE
        + "\n  const $I half = i >> 1;"
        + "\n  return (p + $ONE) * $power_of_two(half) * $power_of_two(i - half);",
    ),
    Text(
        "expm1",
        "$T x",
        "\n  const $T c = $larger($splat($EXPM1_LOW), $smaller($splat($EXP_HIGH), x));"
        + _REDUCE
        + "\n  const $T s = $power_of_two(i - 1);"
        + "\n  return $select($absolute(x) < $NOTHING, x, (p * s + (s - $HALF)) * $TWO);",
    ),
    Text("log", "$T u", _SPLIT + "\n  const $T f = m - $ONE;" + "$SERIES" + _LOG_ENDS),
    Text(
        "log1p",
        "$T x",
        "\n  const $T u = x + $ONE;"
         "\n  const $T lost = $select(x > $ONE, $ONE - (u - x), x - (u - $ONE));"
        + _SPLIT
        + "\n  const $T f = (m - $ONE) + lost * $HALF * $number(($U)($BIAS + 1 - i) << $FRACTION);"
        + "$SERIES"
        + "\n  y = $select($absolute(x) < $NOTHING, x, y);"
        + _LOG_ENDS,
    ),
    Text(
        "tanh",
        "$T x",
        """
  const $T a = $absolute(x), z = x * x;
  const $T small = x + x * z * $tanh_series(z);
  const $T large = $ONE - $TWO / ($exp(a * $TWO) + $ONE);
  return $copysign($select(a < $TANH_SMALL, $absolute(small), large), x);""",
    ),
    Text("sigmoid", "$T x", "\n  return $ONE / ($exp(-x) + $ONE);"),
    Text(
        "erf",
        "$T x",
        """
  const $T a = $absolute(x), z = x * x;
  const $T small = x + x * $erf_series(z);
  const $T t = $smaller($splat($ERF_HIGH), a);
  const $T large = $ONE - $ERFC;
  return $copysign($select(a < $ERF_SMALL, $absolute(small), large), x);""",
    ),
    *(
        Text(
            name,
            "$T x",
            _QUADRANT.format(offset=offset, ends=ends),
            vector=_LANES.format(name=name.upper()),
            scalar=_ONE.format(name=name.upper()),
        )
        for name, offset, ends in (("sin", "", f"$select(x == $ZERO, x, {_FLIPPED})"), ("cos", " + 1", _FLIPPED))
    ),
)
"""The functions; each may use those before it and the simple ones of library.py."""

CONSTANTS: dict[DType, dict[str, str]] = {
    F32: {
        "ZERO": "0.0f",
        "ONE": "1.0f",
        "TWO": "2.0f",
        "HALF": "0.5f",
        "INFINITY": "__builtin_inff()",
        "NAN": '__builtin_nanf("")',
        "MAGIC": "0x1.8p23f",
        "FRACTION": "23",
        "FRACTION_BITS": "0x7fffffu",
        "BIAS": "127",
        "WIDTH": "32",
        "LOG2E": "0x1.715476p+0f",
        "LN2_HI": "0x1.62e4p-1f",
        "LN2_LO": "0x1.7f7d1cp-20f",
        "EXP_HIGH": "89.0f",
        "EXP_LOW": "-104.0f",
        "EXPM1_LOW": "-18.0f",
        "NOTHING": "0x1p-25f",
        "LEAST": "0x1p-126f",
        "RAISE": "0x1p25f",
        "RAISED": "25.0f",
        "ROOT_HALF": "0x1.6a09e6p-1f",
        "TANH_SMALL": "0.625f",
        "ERF_SMALL": "0.925f",
        "ERF_HIGH": "4.0f",
        "ERFC": "$exp(t * $erfc_series(t) - t)",
        "TWO_BY_PI": "0x1.45f306p-1f",
        "FAR": "10000.0f",
        "REDUCED": "(((x - n * 0x1.92p+0f) - n * 0x1.fb4p-12f) - n * 0x1.444p-24f) - n * 0x1.68c234p-39f",
        "LIBM_SIN": "__builtin_sinf",
        "LIBM_COS": "__builtin_cosf",
    },
    F64: {
        "ZERO": "0.0",
        "ONE": "1.0",
        "TWO": "2.0",
        "HALF": "0.5",
        "INFINITY": "__builtin_inf()",
        "NAN": '__builtin_nan("")',
        "MAGIC": "0x1.8p52",
        "FRACTION": "52",
        "FRACTION_BITS": "0xfffffffffffffull",
        "BIAS": "1023",
        "WIDTH": "64",
        "LOG2E": "0x1.71547652b82fep+0",
        "LN2_HI": "0x1.62e42fee00000p-1",
        "LN2_LO": "0x1.a39ef35793c76p-33",
        "EXP_HIGH": "710.0",
        "EXP_LOW": "-746.0",
        "EXPM1_LOW": "-38.0",
        "NOTHING": "0x1p-54",
        "LEAST": "0x1p-1022",
        "RAISE": "0x1p54",
        "RAISED": "54.0",
        "ROOT_HALF": "0x1.6a09e667f3bcdp-1",
        "TANH_SMALL": "0.625",
        "ERF_SMALL": "1.0",
        "ERF_HIGH": "5.95",
        "ERFC": "$exp(-t * t) * $erfc_series((t - $TWO) / (t + $TWO))",
        "TWO_BY_PI": "0x1.45f306dc9c883p-1",
        "FAR": "1000000.0",
        "REDUCED": "((x - n * 0x1.921fb544p+0) - n * 0x1.0b4611a6p-34) - n * 0x1.3198a2e037073p-69",
        "LIBM_SIN": "__builtin_sin",
        "LIBM_COS": "__builtin_cos",
    },
}
"""Numbers in the texts, by type."""

POLYNOMIALS: dict[str, dict[DType, tuple[str, ...]]] = {
    # (e^r - 1 - r) / r^2 for |r| <= ln 2 / 2
    "exp_series": {
        F32: (
            "0x1p-1f", "0x1.5554dcp-3f", "0x1.555518p-5f", "0x1.120be2p-7f", "0x1.6d117cp-10f",
        ),
        F64: (
            "0x1p-1", "0x1.5555555555557p-3", "0x1.5555555555556p-5", "0x1.11111111100bep-7", "0x1.6c16c16c162c3p-10",
            "0x1.a01a01abf85abp-13", "0x1.a01a01a6e1e2ap-16", "0x1.71de01fdbf9cap-19", "0x1.27e4db46cddd1p-22",
            "0x1.af4e554377204p-26", "0x1.1f7340dbc337ep-29",
        ),
    },
    # float32: (log(1 + f) - f + f^2 / 2) / f^3; float64: (log((1 + s) / (1 - s)) - 2 s) / s^3 by z = s^2
    "log_series": {
        F32: (
            "0x1.555554p-2f", "-0x1.fffffcp-3f", "0x1.999d5ap-3f", "-0x1.555b4ap-3f", "0x1.23d21ap-3f",
            "-0x1.fcf4c6p-4f", "0x1.dea282p-4f", "-0x1.d635bcp-4f", "0x1.1d8ea6p-4f",
        ),
        F64: (
            "0x1.5555555555555p-1", "0x1.9999999999a43p-2", "0x1.249249247513dp-2", "0x1.c71c7204621fep-3",
            "0x1.745cf7c1d5dafp-3", "0x1.3b1c79943fca2p-3", "0x1.0fb77bcdefa76p-3", "0x1.0c4d8297b1431p-3",
        ),
    },
    # (tanh(x) - x) / x^3 by z = x^2
    "tanh_series": {
        F32: (
            "-0x1.555556p-2f", "0x1.1110eap-3f", "-0x1.ba08c4p-5f", "0x1.64a976p-6f", "-0x1.116a16p-7f",
            "0x1.2c83cp-9f",
        ),
        F64: (
            "-0x1.5555555555555p-2", "0x1.11111111110a8p-3", "-0x1.ba1ba1ba0f126p-5", "0x1.664f487e0a749p-6",
            "-0x1.226e3473dce5cp-7", "0x1.d6d39ae3905e2p-9", "-0x1.7d9f6f23e8682p-10", "0x1.3526e9ed54da1p-11",
            "-0x1.f243823c8c981p-13", "0x1.8445870f6fe41p-14", "-0x1.05bbdae896297p-15", "0x1.b33642a122cddp-18",
        ),
    },
    # (sin(r) - r) / r^3 by z = r^2
    "sin_series": {
        F32: (
            "-0x1.555556p-3f", "0x1.11110ep-7f", "-0x1.a013a2p-13f", "0x1.6dbbeep-19f",
        ),
        F64: (
            "-0x1.5555555555555p-3", "0x1.111111111111p-7", "-0x1.a01a01a019926p-13", "0x1.71de3a545e7p-19",
            "-0x1.ae64540f0ba18p-26", "0x1.61217c1864fa1p-33", "-0x1.ab161757f0c63p-41",
        ),
    },
    # (cos(r) - 1 + r^2 / 2) / r^4 by z = r^2
    "cos_series": {
        F32: (
            "0x1.555554p-5f", "-0x1.6c12cep-10f", "0x1.9bd67p-16f",
        ),
        F64: (
            "0x1.5555555555555p-5", "-0x1.6c16c16c1696p-10", "0x1.a01a019f4d0edp-16", "-0x1.27e4fa15bd814p-22",
            "0x1.1eeb66b683028p-29", "-0x1.907c0e63adbb6p-37",
        ),
    },
    # erf(x) / x - 1 by z = x^2
    "erf_series": {
        F32: (
            "0x1.06eba8p-3f", "-0x1.812744p-2f", "0x1.ce2e14p-4f", "-0x1.b80f72p-6f", "0x1.54cfb6p-8f",
            "-0x1.aa7e38p-11f", "0x1.5d955cp-14f",
        ),
        F64: (
            "0x1.06eba8214db69p-3", "-0x1.812746b0379e6p-2", "0x1.ce2f21a042b3p-4", "-0x1.b82ce31284ep-6",
            "0x1.565bcd0dbaa38p-8", "-0x1.c02db3dac435fp-11", "0x1.f9a321d5b8e1ep-14", "-0x1.f4d1e3183f7aep-17",
            "0x1.b9df224ca4b97p-20", "-0x1.5f1ecb6f0764cp-23", "0x1.f7b4bf3b13964p-27", "-0x1.389d4f2641625p-30",
            "0x1.05ffd737fb32ep-34",
        ),
    },
    # float32: log(erfc(t)) / t + 1; float64: e^(t^2) erfc(t) by (t - 2) / (t + 2)
    "erfc_series": {
        F32: (
            "-0x1.07fe3p-3f", "-0x1.44af12p-1f", "-0x1.b9c6dap-4f", "0x1.9be2eap-6f", "-0x1.1a0d9ap-8f",
            "0x1.058728p-11f", "-0x1.2078c2p-15f", "0x1.18cd16p-20f",
        ),
        F64: (
            "0x1.058671b52c776p-2", "-0x1.b57034efd3f72p-2", "0x1.eeea7dc8a78b3p-3", "-0x1.437f0b68c0bf4p-4",
            "0x1.e9471597a29a6p-9", "0x1.ca95ed533167p-8", "-0x1.bc25a4815d20ap-11", "-0x1.016b5cdc64971p-10",
            "0x1.6d5f06f11b082p-15", "0x1.6da96cce99627p-13", "0x1.cdca3b7957f07p-16", "-0x1.ceb3196761a69p-16",
            "-0x1.d47d976a68099p-17", "0x1.72d3af6265a44p-20", "0x1.f9183755ea58cp-19", "0x1.4f4b1c03c9fc6p-20",
            "-0x1.11c4b4492224ap-21", "-0x1.3f594ba3ff6cdp-21", "0x1.036b5b4026603p-23",
        ),
    },
}
"""Coefficients by rising power, interpolated at Chebyshev's points in 60 digits."""


def _horner(coefficients: Sequence[str]) -> str:
    text = coefficients[-1]
    for c in reversed(coefficients[:-1]):
        text = f"({text} * x + {c})"
    return text


def templates() -> dict[tuple[str, DType], tuple[str, str]]:
    """The texts (for scalars, for vectors) of every function and element type, with $T, $M, ... still in them."""
    found = {}
    for dtype, constants in CONSTANTS.items():
        for name, coefficients in POLYNOMIALS.items():
            text = f"static inline $T irconv_{name}_$S($T x) {{ return {_horner(coefficients[dtype])}; }}"
            found[name, dtype] = (text, text)
        for function in TEXTS:
            scalar, vector = (_filled(function, end, dtype, constants) for end in (function.scalar, function.vector))
            found[function.name, dtype] = (scalar, vector)
    return found


def _filled(function: Text, end: str, dtype: DType, constants: dict[str, str]) -> str:
    head = f"static inline $T irconv_{function.name}_$S({function.parameters}) {{"
    text = f"{head}{function.body.replace('$SERIES', _SERIES[dtype])}{end}\n}}"
    names = sorted(constants, key=len, reverse=True)
    pattern = re.compile(r"\$(" + "|".join(names) + r")(?![A-Z_0-9])")
    while pattern.search(text):  # a constant may name others
        text = pattern.sub(lambda found: constants[found.group(1)], text)
    return text
