"""Samples of attach_gradient: its value, and a rule that is the true derivative of what it stands behind."""

from __future__ import annotations

import numpy as np

from irconv.ops.custom import AttachGradientAttributes
from irconv.ops.elementwise import multiply
from tests.samples import Sample, numbers


def _row(name: str, inputs: int, *operands: np.ndarray) -> Sample:
    # the value does not depend on the inputs, so central differences do not apply: tests/test_autograd.py checks the rule
    return Sample("attach_gradient", operands, AttachGradientAttributes(name, inputs, lambda saved, d: [multiply(d, 1.0)] * inputs), name, gradient=False)


SAMPLES = [
    _row("identity", 1, numbers(2, 3), numbers(2, 3)),
    _row("two_inputs", 2, numbers(2), numbers(2), numbers(2)),
    _row("saved", 1, numbers(2), numbers(2), numbers(3)),
    _row("three_inputs", 3, numbers(1), numbers(1), numbers(1), numbers(1)),
]
