"""Ops that passes and kernels list by name are ops that there are."""

from __future__ import annotations

import pytest

from irconv import cost
from irconv.op import OPS
from irconv.passes import gradient_sums, patterns, postpone, prologues, recompute

LISTS = {
    "light ops": cost.LIGHT,
    "light sums": gradient_sums.LIGHT,
    "light prologues": prologues.LIGHT,
    "pools": prologues.POOLS,
    "contractions": patterns.CONTRACTIONS,
    "reductions": patterns.REDUCTIONS,
    "postponed reductions": postpone.REDUCTIONS,
    "recomputed": recompute.CHEAP,
}


@pytest.mark.parametrize("name", LISTS)
def test_listed_ops_exist(name) -> None:
    assert set(LISTS[name]) <= set(OPS)
