"""Dropout layers: active in training, identity in evaluation."""

from __future__ import annotations

from typing import Any

import irconv.nn.functional as F
from irconv.nn.functional.common import refused
from irconv.nn.module import Module
from irconv.tensor import Tensor


class _Dropout(Module):
    function: Any = None

    def __init__(self, p: float = 0.5, inplace: bool = False):
        if not 0 <= p <= 1:
            raise refused(f"dropout probability {p} is not between 0 and 1")
        self.p, self.inplace = p, inplace

    def forward(self, input: Tensor) -> Tensor:
        result: Tensor = type(self).function(input, self.p, self.training)
        return result

    def extra_repr(self) -> str:
        return f"p={self.p}"


class Dropout(_Dropout):
    """Each element is 0 with probability p, and divided by 1 - p otherwise."""

    function = F.dropout


class Dropout1d(_Dropout):
    """Dropout of whole channels of [N, C, L] or [C, L]."""

    function = F.dropout1d


class Dropout2d(_Dropout):
    """Dropout of whole channels of [N, C, H, W] or [C, H, W]."""

    function = F.dropout2d


class Dropout3d(_Dropout):
    """Dropout of whole channels of [N, C, D, H, W] or [C, D, H, W]."""

    function = F.dropout3d
