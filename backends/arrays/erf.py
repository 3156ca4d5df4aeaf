"""The error function from arithmetic alone: rational approximations, selected without branches.

float32: one odd rational on the clamped argument, within 5e-7 of math.erf, absolutely and relatively.  float64: W. J. Cody,
Rational Chebyshev approximation for the error function, Math. Comp. 23 (1969): within 4 units in the last place.
"""

from __future__ import annotations

from typing import Any

from irconv.backends.arrays.base import Array
from irconv.backends.arrays.blocks import Step
from irconv.types import BOOL, F64, TensorType

# odd numerator and even denominator in x^2, highest power first; |x| is clamped to 4, where erf rounds to 1
ALPHA = (
    -2.72614225801306e-10,
    2.77068142495902e-08,
    -2.10102402082508e-06,
    -5.69250639462346e-05,
    -7.34990630326855e-04,
    -2.95459980854025e-03,
    -1.60960333262415e-02,
)
BETA = (
    -1.45660718464996e-05,
    -2.13374055278905e-04,
    -1.68282697438203e-03,
    -7.37332916720468e-03,
    -1.42647390514189e-02,
)

# Cody's coefficients, highest power first: erf on [0, 0.46875], erfc on [0.46875, 4], erfc beyond
A = (1.85777706184603153e-1, 3.16112374387056560, 1.13864154151050156e2, 3.77485237685302021e2, 3.20937758913846947e3)
B = (1.0, 2.36012909523441209e1, 2.44024637934444173e2, 1.28261652607737228e3, 2.84423683343917062e3)
C = (
    2.15311535474403846e-8,
    5.64188496988670089e-1,
    8.88314979438837594,
    6.61191906371416295e1,
    2.98635138197400131e2,
    8.81952221241769090e2,
    1.71204761263407058e3,
    2.05107837782607147e3,
    1.23033935479799725e3,
)
D = (
    1.0,
    1.57449261107098347e1,
    1.17693950891312499e2,
    5.37181101862009858e2,
    1.62138957456669019e3,
    3.29079923573345963e3,
    4.36261909014324716e3,
    3.43936767414372164e3,
    1.23033935480374942e3,
)
P = (
    1.63153871373020978e-2,
    3.05326634961232344e-1,
    3.60344899949804439e-1,
    1.25781726111229246e-1,
    1.60837851487422766e-2,
    6.58749161529837803e-4,
)
Q = (
    1.0,
    2.56852019228982242,
    1.87295284992346725,
    5.27905102951428412e-1,
    6.05183413124413191e-2,
    2.33520497626869185e-3,
)
SQRPI = 5.6418958354775628695e-1
SMALL, LARGE = 0.46875, 4.0


def erf_step(xp: Any, attributes: Any, operands: tuple[TensorType, ...]) -> Step:
    """The step for float32 or float64 operands."""
    dtype = operands[0].dtype
    if dtype is F64:
        return Step(lambda x, out, *t: _erf64(xp, x, out, *t), (F64, F64, F64, F64, BOOL))
    return Step(lambda x, out, *t: _erf32(xp, x, out, *t), (dtype, dtype, dtype))


def _horner(xp: Any, coefficients: tuple[float, ...], x: Array, out: Array) -> None:
    """out = the polynomial with these coefficients, highest power first, at x."""
    xp.multiply(x, coefficients[0], out)
    for c in coefficients[1:-1]:
        xp.add(out, c, out)
        xp.multiply(out, x, out)
    xp.add(out, coefficients[-1], out)


def _erf32(xp: Any, x: Array, out: Array, clamped: Array, squared: Array, below: Array) -> None:
    xp.maximum(x, -4.0, out=clamped)
    xp.minimum(clamped, 4.0, out=clamped)
    xp.multiply(clamped, clamped, squared)
    _horner(xp, ALPHA, squared, out)
    _horner(xp, BETA, squared, below)
    xp.divide(out, below, out)
    xp.multiply(out, clamped, out)
    # the quotient may round to just above 1
    xp.maximum(out, -1.0, out=out)
    xp.minimum(out, 1.0, out=out)


def _erf64(xp: Any, x: Array, out: Array, y: Array, z: Array, above: Array, below: Array, chosen: Array) -> None:
    xp.absolute(x, y)
    # middle: erf = 1 - exp(-y^2) C(y) / D(y)
    xp.minimum(y, LARGE, out=z)
    _horner(xp, C, z, above)
    _horner(xp, D, z, below)
    xp.divide(above, below, out)
    # far: erfc = exp(-y^2) (1/sqrt(pi) - z P(z) / Q(z)) / y with z = 1 / y^2
    xp.maximum(y, LARGE, out=below)
    xp.multiply(below, below, z)
    xp.divide(1.0, z, z)
    _horner(xp, P, z, above)
    xp.multiply(above, z, above)
    _horner(xp, Q, z, below)
    xp.divide(above, below, above)
    xp.subtract(SQRPI, above, above)
    xp.maximum(y, LARGE, out=below)
    xp.divide(above, below, above)
    xp.greater(y, LARGE, chosen)
    xp.copyto(out, above, where=chosen)
    # exp(-y^2) in two factors: y^2 = q^2 + (y - q)(y + q) with q = y to 4 binary places, so that q^2 is exact
    xp.multiply(y, 16.0, z)
    xp.trunc(z, z)
    xp.divide(z, 16.0, z)
    xp.subtract(y, z, above)
    xp.add(y, z, below)
    xp.multiply(above, below, above)
    xp.negative(above, above)
    xp.exp(above, above)
    xp.multiply(z, z, z)
    xp.negative(z, z)
    xp.exp(z, z)
    xp.multiply(z, above, z)
    xp.multiply(out, z, out)
    xp.subtract(1.0, out, out)
    xp.copysign(out, x, out)
    # near zero: erf = x A(x^2) / B(x^2)
    xp.multiply(y, y, z)
    _horner(xp, A, z, above)
    _horner(xp, B, z, below)
    xp.divide(above, below, above)
    xp.multiply(above, x, above)
    xp.less_equal(y, SMALL, chosen)
    xp.copyto(out, above, where=chosen)
    # infinite arguments made inf - inf on the way
    xp.greater(y, 6.0, chosen)
    xp.copyto(z, 1.0)
    xp.copysign(z, x, z)
    xp.copyto(out, z, where=chosen)
