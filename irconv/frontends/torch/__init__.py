"""PyTorch modules in: :func:`from_torch`.  Importing this package imports PyTorch (``pip install 'irconv[torch]'``)."""

from irconv.frontends.torch.importer import TorchModule, from_torch

__all__ = ["TorchModule", "from_torch"]
