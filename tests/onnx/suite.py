"""ONNX's own backend test suite, run through the importer, the compiler and the NumPy backend.

:data:`LEFT_OUT` says for every test that is not run, why.
"""

from __future__ import annotations

import os
import re
import tempfile
import unittest
import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
from onnx import ModelProto, TensorProto, helper
from onnx.backend.base import Backend, BackendRep
from onnx.backend.test import BackendTest

import irconv
from irconv.frontends.onnx import load_model

QUANTISED = "integer-quantised operators are out of scope"
NO_TENSORS = "strings, optionals and maps are out of scope: values are tensors of numbers, and sequences of them"
MACHINE_LEARNING = "classical machine learning operators (ai.onnx.ml) are out of scope"
TRAINING = "gradients and optimisers as operators are out of scope: irconv differentiates and updates by itself"
IMAGES = "decodes image files, which is not part of a network"
RANDOM = "draws random numbers: compared by their statistics in test_random.py"

NARROW = {
    number: helper.tensor_dtype_to_np_dtype(number)
    for name, number in TensorProto.DataType.items()
    if name in ("BFLOAT16", "INT4", "UINT4", "INT2", "UINT2") or name.startswith(("FLOAT8", "FLOAT4"))
}
"""The element types that irconv holds in wider ones, as onnx hands them over."""

LEFT_OUT: tuple[tuple[str, str], ...] = (
    (r"^test_(quantizelinear|dequantizelinear|dynamicquantizelinear|qlinear|convinteger|matmulinteger)", QUANTISED),
    (r"^test_(string|strnorm|regex|tfidf|label_encoder|optional|identity_opt|if_opt|loop16_seq_none|equal_string)", NO_TENSORS),
    (r"^test_(cast|castlike)_(\w+_to_STRING|STRING_to_\w+)", NO_TENSORS),
    (r"^test_ai_onnx_ml", MACHINE_LEARNING),
    (r"^test_(adagrad|adam|momentum|nesterov_momentum|gradient_of)", TRAINING),
    (r"^test_(bernoulli|training_dropout(?!_zero_ratio))", RANDOM),
    (r"^test_image_decoder", IMAGES),
)
"""(pattern of test names, why they are left out)."""

TOLERANCES: dict[str, dict[str, float]] = {
    # one step of float16 away from values that were rounded after every operation
    "test_attention_4d_causal_fp16": {"rtol": 2e-3},
    "test_attention_4d_causal_fp16_expanded": {"rtol": 2e-3},
    # the suite has rounding errors of 2e-7 where the result is 0
    "test_dft_inverse": {"atol": 1e-6},
    "test_dft_inverse_opset19": {"atol": 1e-6},
}
"""Tolerances that are wider than the suite's: 1e-3 relative, 1e-7 absolute."""


class Compiled(BackendRep):
    """A model that is compiled for the inputs it is run on."""

    def __init__(self, model: ModelProto):
        self.model = load_model(model.SerializeToString())
        self.compiled = irconv.compile(self.model, backend="numpy")
        self.narrow = [NARROW.get(info.type.tensor_type.elem_type) for info in model.graph.output]

    def run(self, inputs: Sequence[Any], **kwargs: Any) -> tuple[Any, ...]:
        found = self.compiled(*inputs)
        results = (found,) if len(self.model.output_names) == 1 else found
        return tuple(as_declared(result, dtype) for result, dtype in zip(results, self.narrow, strict=True))


def as_declared(result: Any, dtype: Any) -> Any:
    """A result in the narrow type that the model declares, which irconv holds in a wider one: nothing may be lost."""
    if dtype is None:
        return result
    narrow = result.astype(dtype)
    np.testing.assert_array_equal(narrow.astype(result.dtype), result)
    return narrow


class IrconvBackend(Backend):
    """irconv as ONNX's tests know backends."""

    @classmethod
    def prepare(cls, model: ModelProto, device: str = "CPU", **kwargs: Any) -> Compiled:
        return Compiled(model)

    @classmethod
    def supports_device(cls, device: str) -> bool:
        return device == "CPU"


def left_out(name: str) -> str | None:
    """Why a test is not run; None if it is."""
    return next((reason for pattern, reason in LEFT_OUT if re.search(pattern, name)), None)


def backend_cases(module: str) -> dict[str, type[unittest.TestCase]]:
    """ONNX's test cases by name, those of other devices taken out, those that are left out skipped with the reason."""
    # the runner keeps copies of its models there
    os.environ.setdefault("ONNX_HOME", os.path.join(tempfile.gettempdir(), f"irconv-onnx-{os.getuid()}"))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # the suite's data overflow and divide by zero on purpose
        suite = BackendTest(IrconvBackend, module, TOLERANCES)
        cases: dict[str, type[unittest.TestCase]] = suite.test_cases
    for case in cases.values():
        for name in [n for n in vars(case) if n.startswith("test_")]:
            reason = left_out(name)
            if name.endswith("_cuda"):
                delattr(case, name)
            elif reason:
                setattr(case, name, unittest.skip(reason)(getattr(case, name)))
    return cases
