"""The face of nn is PyTorch's: names, parameter names, their order and their defaults."""

from __future__ import annotations

import inspect
from typing import Any

import pytest

import irconv.nn.functional as F
from irconv import nn

torch = pytest.importorskip("torch")

OURS_ALONE = {"generator", "dtype"}
OLD = {"size_average", "reduce", "_stacklevel", "device", "min_value", "max_value", "inplace", "out"}


def parameters(thing: Any) -> dict[str, Any] | None:
    """Parameter names and defaults; None for builtins."""
    try:
        found = inspect.signature(thing).parameters
    except ValueError:
        return None
    return {name: p.default for name, p in found.items() if name not in OURS_ALONE | OLD | {"self"}}


FUNCTIONS = [name for name in F.__all__ if hasattr(torch.nn.functional, name)]
CLASSES = [name for name in nn.__all__ if isinstance(getattr(nn, name), type) and hasattr(torch.nn, name)]
# ours take dicts and modules where PyTorch's take several kinds of things, or have parameters of their own
DIFFERENT = {"Module", "Parameter", "Buffer", "Sequential", "ModuleList", "ModuleDict", "Identity", "HuberLoss"}


def check(ours: Any, theirs: Any) -> None:
    mine, other = parameters(ours), parameters(theirs)
    if mine is None or other is None or "args" in other or "kwargs" in other:
        return
    assert list(mine) == list(other)
    for name, default in other.items():
        wanted = None if default == () else default
        assert mine[name] == wanted or (mine[name], wanted) == (False, None), name


@pytest.mark.parametrize("name", [n for n in FUNCTIONS if n not in ("pad", "upsample", "kl_div", "flatten")])
def test_functions(name: str) -> None:
    check(getattr(F, name), getattr(torch.nn.functional, name))


@pytest.mark.parametrize("name", [n for n in CLASSES if n not in DIFFERENT])
def test_layers(name: str) -> None:
    check(getattr(nn, name), getattr(torch.nn, name))


def test_nothing_that_was_asked_for_is_missing() -> None:
    assert len(FUNCTIONS) >= 70
    assert len(CLASSES) >= 95
