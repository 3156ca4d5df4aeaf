"""ONNX's own backend test suite, run through the importer, the compiler and the NumPy backend.

:data:`LEFT_OUT` says for every test that is not run, why.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
from onnx import ModelProto
from onnx.backend.base import Backend, BackendRep

import irconv
from irconv.frontends.onnx import load_model

QUANTISED = "integer-quantised operators are out of scope"
NO_TENSORS = "strings, optionals and maps are out of scope: values are tensors of numbers, or sequences of them"
MACHINE_LEARNING = "classical machine learning operators (ai.onnx.ml) are out of scope"
TRAINING = "gradients and optimisers as operators are out of scope: irconv differentiates and updates itself"
NARROW = "bfloat16, float8, float4, int4 and int2 are not element types of irconv"
IMAGES = "reads JPEG and other image files, which is not part of a network"
RANDOM = "draws random numbers: compared by their statistics in test_random.py"
DATA_DEPENDENT = "the shape of the result depends on data"

LEFT_OUT: tuple[tuple[str, str], ...] = (
    (r"^test_(quantizelinear|dequantizelinear|dynamicquantizelinear|qlinear|convinteger|matmulinteger)", QUANTISED),
    (r"^test_(string|strnorm|regex|tfidf|label_encoder|optional|identity_opt)", NO_TENSORS),
    (r"^test_(if_opt|loop16_seq_none|equal_string|cast_\w*STRING|castlike_\w*STRING|range_\w*string)", NO_TENSORS),
    (r"^test_ai_onnx_ml", MACHINE_LEARNING),
    (r"^test_(adagrad|adam|momentum|nesterov_momentum|gradient_of)", TRAINING),
    (r"(?i)(bfloat16|_bf16|float8|float4|(?<![a-z])u?int4|(?<![a-z])u?int2(?!\d)|uint2(?!\d))", NARROW),
    (r"^test_(bernoulli|training_dropout(?!_zero_ratio))", RANDOM),
    (r"^test_image_decoder", IMAGES),
)
"""(pattern of test names, why they are left out)."""


class Compiled(BackendRep):
    """A model that is compiled for the inputs it is run on."""

    def __init__(self, model: ModelProto):
        self.model = load_model(model.SerializeToString())
        self.compiled = irconv.compile(self.model, backend="numpy")

    def run(self, inputs: Sequence[Any], **kwargs: Any) -> tuple[Any, ...]:
        found = self.compiled(*inputs)
        return (found,) if len(self.model.output_names) == 1 else found


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


def quiet() -> None:
    """ONNX's own test data overflow and divide by zero on purpose."""
    warnings.filterwarnings("ignore", category=RuntimeWarning, module="onnx")
    np.seterr(all="ignore")
