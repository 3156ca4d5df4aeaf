"""PyTorch's parameters and buffers as irconv's, over the same memory."""

from __future__ import annotations

from typing import Any

import torch

from irconv.concrete import ConcreteValue
from irconv.errors import ModelError
from irconv.nn.module import Buffer, Parameter
from irconv.state import Variable
from irconv.tensor import Tensor
from irconv.types import as_dtype


class TorchVariable(Variable):
    """The memory of a PyTorch tensor.  Writes on either side count as new versions."""

    __slots__ = ("_writes", "tensor")

    def __init__(self, tensor: torch.Tensor, array: Any):
        self.tensor = tensor
        self._writes = 0
        super().__init__(array)

    @property
    def version(self) -> int:
        """How often either side has written (PyTorch does not count what goes through ``.data``: see :meth:`touch`)."""
        return self._writes + int(self.tensor._version)

    @version.setter
    def version(self, value: int) -> None:
        self._writes = value - int(self.tensor._version)

    @property
    def notes_writes(self) -> bool:
        return False  # PyTorch tells nobody when it writes


def shared_variable(tensor: torch.Tensor, name: str) -> TorchVariable:
    """A variable over a tensor's memory.

    Raises ModelError for a tensor that NumPy cannot look at: on a GPU, not contiguous, or of a type that irconv does not have.
    """
    plain = tensor.detach()
    if plain.device.type != "cpu":
        raise ModelError(
            f"{name!r} is on the device {plain.device}", hint="move the module to the CPU first: module.cpu()"
        )
    if plain.layout is not torch.strided or not plain.is_contiguous():
        raise ModelError(
            f"{name!r} is not contiguous, so its memory cannot be shared",
            hint="module.to(memory_format=torch.contiguous_format)",
        )
    try:
        array = plain.numpy()
    except (TypeError, RuntimeError) as error:
        raise ModelError(f"{name!r} of type {plain.dtype} cannot be shared: {error}", hint="module.float()") from None
    as_dtype(array.dtype)
    return TorchVariable(plain, array)


class Sharing:
    """Makes each parameter and buffer once, so that tied ones stay tied."""

    def __init__(self) -> None:
        self._made: dict[int, tuple[torch.Tensor, Tensor]] = {}

    def __call__(self, tensor: torch.Tensor | None, name: str) -> Tensor | None:
        """The Parameter or Buffer over a tensor's memory."""
        if tensor is None:
            return None
        known = self._made.get(id(tensor))
        if known is None:
            known = self._made[id(tensor)] = (tensor, self._make(tensor, name))
        return known[1]

    def _make(self, tensor: torch.Tensor, name: str) -> Tensor:
        variable = shared_variable(tensor, name)
        kind = Parameter if isinstance(tensor, torch.nn.Parameter) else Buffer
        made: Tensor = kind.__new__(kind)
        Tensor.__init__(made, ConcreteValue(variable.array, variable=variable))
        if kind is Parameter:
            made.requires_grad_(tensor.requires_grad)
        return made
