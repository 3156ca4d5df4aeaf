"""Random bits: the words of the reference, to the bit."""

from __future__ import annotations

import numpy as np
import pytest

from irconv.backends.native.kernels.random import TASK_BLOCKS
from irconv.ops.random import RandomBitsAttributes
from tests.backends.native.elements import RUNNABLE, one_op, reference

KEY = np.array([0xDEADBEEF, 0xFFFFFFFF], np.uint32)
STEP = np.array(0xFEDCBA98_76543210, np.uint64)


@pytest.mark.parametrize("machine", RUNNABLE)
def test_bits_are_the_references(machine: str) -> None:
    """Ends inside and between blocks, vectors and tasks; one source for all streams and shapes."""
    sources = set()
    for shape in ((), (0,), (1,), (3,), (4,), (5, 1), (31,), (32,), (33,), (7, 9), (4 * TASK_BLOCKS,), (4 * TASK_BLOCKS * 2 + 6,)):
        for stream in ((0, 0), (0xFFFFFFFF, 12)):
            attributes = RandomBitsAttributes(stream, shape)
            case = one_op("random_bits", attributes, (KEY, STEP), machine)
            wanted = reference("random_bits", attributes, (KEY, STEP))
            for backwards in (False, True):
                (actual,) = case.run(backwards)
                np.testing.assert_array_equal(actual, wanted)
            sources.add(case.made.source)
    assert len(sources) == 1


def test_a_key_that_is_a_view() -> None:
    attributes = RandomBitsAttributes((1, 2), (13,))
    (actual,) = one_op("random_bits", attributes, (KEY[::-1], STEP)).run()
    np.testing.assert_array_equal(actual, reference("random_bits", attributes, (KEY[::-1], STEP)))


def test_a_result_in_another_order_is_left_to_the_array_kernel() -> None:
    assert one_op("random_bits", RandomBitsAttributes((1, 2), (3, 5)), (KEY, STEP), order=(1, 0)).made is None
