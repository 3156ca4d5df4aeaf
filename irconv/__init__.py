"""irconv: a compiler for convolutional networks."""

from irconv import numpy_protocol as _numpy_protocol
from irconv import ops as _ops
from irconv import text as _text
from irconv.autograd import Function, differentiate, grad, value_and_grad, vjp
from irconv.errors import IrconvError
from irconv.graph import Graph
from irconv.tensor import Tensor, arange, concatenate, full, no_grad, ones, stack, tensor, where, zeros
from irconv.parse import parse
from irconv.tracing import trace
from irconv.types import TensorSpec
