"""PyTorch's modules as irconv's, with the same names, settings and memory."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import torch

from irconv import nn
from irconv.frontends.torch.sharing import Sharing
from irconv.frontends.torch.table import TENSOR
from irconv.nn.module import Module, joined


class Block(Module):
    """What holds layers; the program of the whole says how they are run."""

    def __init__(self, kind: str):
        self.kind = kind

    def extra_repr(self) -> str:
        return f"from {self.kind}"


class Applied(Module):
    """A layer that is one function of its input, with settings and parameters by name."""

    def __init__(self, function: Callable[..., Any], settings: dict[str, Any], parts: tuple[str, ...] = ()):
        self.function, self.settings, self.parts = function, settings, parts

    def forward(self, input: Any) -> Any:
        return self.function(input, **self.settings, **{name: getattr(self, name) for name in self.parts})

    def extra_repr(self) -> str:
        return ", ".join(f"{name}={value!r}" for name, value in self.settings.items())


FUNCTIONS: dict[str, tuple[str, tuple[str, ...], tuple[str, ...]]] = {
    "Hardshrink": ("hardshrink", ("lambd",), ()),
    "Softshrink": ("softshrink", ("lambd",), ()),
    "Tanhshrink": ("tanhshrink", (), ()),
    "ChannelShuffle": ("channel_shuffle", ("groups",), ()),
    "LPPool1d": ("lp_pool1d", ("norm_type", "kernel_size", "stride", "ceil_mode"), ()),
    "LPPool2d": ("lp_pool2d", ("norm_type", "kernel_size", "stride", "ceil_mode"), ()),
    "LPPool3d": ("lp_pool3d", ("norm_type", "kernel_size", "stride", "ceil_mode"), ()),
    "RMSNorm": ("rms_norm", ("normalized_shape", "eps"), ("weight",)),
}
"""Layers that irconv.nn does not have: function, settings, parameters."""

RENAMED: dict[str, tuple[str, dict[str, Any]]] = {
    "UpsamplingNearest2d": ("Upsample", {"mode": "nearest", "align_corners": None}),
    "UpsamplingBilinear2d": ("Upsample", {"mode": "bilinear", "align_corners": True}),
    "Softmax2d": ("Softmax", {"dim": -3}),
    "SyncBatchNorm": ("BatchNorm2d", {}),
}
"""Layers that are others of irconv.nn with some settings fixed."""

HOLDERS = ("Sequential", "ModuleList", "ModuleDict", "Module")


def is_layer(module: torch.nn.Module) -> bool:
    """Whether a module is one of PyTorch's own layers, not a holder of others or a user's module."""
    kind = type(module)
    return kind.__module__.startswith("torch.nn.modules") and kind.__name__ not in HOLDERS


def is_known(module: torch.nn.Module) -> bool:
    """Whether :func:`converted` makes a layer of it."""
    name = type(module).__name__
    return is_layer(module) and (name in FUNCTIONS or name in RENAMED or hasattr(nn, name))


def converted(module: torch.nn.Module, share: Sharing, path: str = "") -> Module:
    """The module with all below; what is not known becomes a Block that holds its parts."""
    made = _layer(module) if is_known(module) else Block(type(module).__name__)
    fill(made, module, share, path)
    return made


def fill(made: Module, module: torch.nn.Module, share: Sharing, path: str) -> None:
    """Give ``made`` the parameters, buffers, submodules and mode of ``module``."""
    for name, tensor in (*module._parameters.items(), *module._buffers.items()):
        setattr(made, name, share(tensor, joined(path, name)))
    for name, child in module.named_children():
        setattr(made, name, converted(child, share, joined(path, name)))
    made.own_training = module.training


def _layer(module: torch.nn.Module) -> Module:
    """irconv's layer with the settings of PyTorch's; its parameters are still to be put in."""
    name = type(module).__name__
    if name in FUNCTIONS:
        function, keys, parts = FUNCTIONS[name]
        return Applied(TENSOR[function], {key: getattr(module, key) for key in keys}, parts)
    name, settings = RENAMED.get(name, (name, {}))
    kind = getattr(nn, name)
    given = dict(settings)
    for key in inspect.signature(kind.__init__).parameters:
        if key == "bias":
            given[key] = getattr(module, "bias", None) is not None
        elif key not in given and key not in ("self", "dtype", "init", "args", "kwargs") and hasattr(module, key):
            given[key] = getattr(module, key)
    made: Module = kind.__new__(kind)
    vars(made)["reset_parameters"] = _nothing  # the weights come from PyTorch
    kind.__init__(made, **given)
    del vars(made)["reset_parameters"]
    return made


def _nothing() -> None:
    """Do nothing."""
