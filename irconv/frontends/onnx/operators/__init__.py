"""Handlers of ONNX operators, one file per family.  Importing this package registers all of them."""

from irconv.frontends.onnx.operators import activation, control, conv, elementwise, linear, norm, pool, reduce, shape

__all__ = ["activation", "control", "conv", "elementwise", "linear", "norm", "pool", "reduce", "shape"]
