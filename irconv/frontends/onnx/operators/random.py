"""Random numbers, from irconv's counter-based generator: a node's ``seed`` gives it a generator of its own."""

from __future__ import annotations

import struct
from typing import Any

from irconv.frontends.onnx.operators.common import same_type, tensor_of
from irconv.frontends.onnx.registry import Call, operator
from irconv.frontends.onnx.tensors import dimensions, element_type
from irconv.ops import elementwise as e
from irconv.random import Generator, default_generator
from irconv.tensor import Tensor
from irconv.types import DType


def generator(call: Call) -> Generator:
    """The generator that a node draws from."""
    seed = call.attributes.float("seed", None)
    if seed is None:
        return default_generator()
    (bits,) = struct.unpack("<Q", struct.pack("<d", seed))
    return Generator(bits)


def _dtype(call: Call, default: DType) -> DType:
    number = call.attributes.int("dtype", None)
    return default if number is None else element_type(number, f"the result of {call.node.operator}")


def _uniform(call: Call, shape: tuple[int, ...], dtype: DType) -> Tensor:
    a = call.attributes
    return generator(call).uniform(shape, a.float("low", 0.0), a.float("high", 1.0), dtype)


def _normal(call: Call, shape: tuple[int, ...], dtype: DType) -> Tensor:
    a = call.attributes
    return generator(call).normal(shape, a.float("mean", 0.0), a.float("scale", 1.0), dtype)


def _register(name: str, draw: Any) -> None:
    def handle(call: Call) -> Tensor:
        shape = dimensions(call.attributes.ints("shape"), f"the result of {name}")
        result: Tensor = draw(call, shape, _dtype(call, element_type(1, name)))
        return result

    def handle_like(call: Call, x: Tensor) -> Tensor:
        result: Tensor = draw(call, x.shape, _dtype(call, x.type.dtype))
        return result

    operator(name)(handle)
    operator(f"{name}Like", shape_only=True)(handle_like)


_register("RandomUniform", _uniform)
_register("RandomNormal", _normal)


@operator("Bernoulli")
def bernoulli(call: Call, x: Tensor) -> Tensor:
    """1 with the probability that x says, 0 otherwise."""
    drawn = generator(call).uniform(x.shape)
    return tensor_of(e.cast(e.less(drawn, same_type(x, drawn)), _dtype(call, x.type.dtype)))
