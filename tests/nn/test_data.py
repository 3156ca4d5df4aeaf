"""The minibatch iterator: order, structure, resumption, prefetching, errors, threads."""

from __future__ import annotations

import gc
import threading

import numpy as np
import pytest

from irconv.data import Batches
from irconv.errors import AttributeValueError, ShapeError, StateError

X, Y = np.arange(20, dtype=np.float32).reshape(10, 2), np.arange(10)


def threads() -> int:
    return sum(t.name == "irconv-batches" for t in threading.enumerate())


@pytest.mark.parametrize("prefetch", [0, 1, 3])
def test_each_epoch_is_all_samples_in_another_order(prefetch: int) -> None:
    batches = Batches((X, Y), 4, seed=3, prefetch=prefetch)
    assert len(batches) == 3
    epochs = []
    for _ in range(3):
        seen = list(batches)
        assert [len(y) for _, y in seen] == [4, 4, 2]
        for x, y in seen:
            np.testing.assert_array_equal(x, X[y])
        epochs.append(np.concatenate([y for _, y in seen]).tolist())
    assert batches.epoch == 3
    assert all(sorted(e) == list(range(10)) for e in epochs)
    assert epochs[0] != epochs[1] != epochs[2]
    again = Batches((X, Y), 4, seed=3, prefetch=0)
    assert [np.concatenate([y for _, y in again]).tolist() for _ in range(3)] == epochs
    other = Batches((X, Y), 4, seed=4)
    assert np.concatenate([y for _, y in other]).tolist() != epochs[0]
    assert threads() == 0


def test_without_shuffling_and_without_the_rest() -> None:
    assert [y.tolist() for y in Batches(Y, 4, shuffle=False)] == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9]]
    assert [y.tolist() for y in Batches(Y, 4, shuffle=False, drop_last=True)] == [[0, 1, 2, 3], [4, 5, 6, 7]]


def test_batches_have_the_arrays_structure() -> None:
    first = next(iter(Batches({"image": X, "more": (Y, Y)}, 4, shuffle=False)))
    assert first["image"].shape == (4, 2)
    assert first["more"][1].tolist() == [0, 1, 2, 3]


@pytest.mark.parametrize("prefetch", [0, 2])
def test_transforms_draw_the_same_numbers_every_time(prefetch: int) -> None:
    def noisy(batch: tuple, random: np.random.Generator) -> tuple:
        x, y = batch
        return x + random.normal(size=x.shape), y

    runs = [[x for _ in range(2) for x, _ in Batches((X, Y), 4, transform=noisy, prefetch=p)] for p in (0, prefetch)]
    for a, b in zip(*runs, strict=True):
        np.testing.assert_array_equal(a, b)
    assert not np.array_equal(runs[0][0], X[:4])


@pytest.mark.parametrize("prefetch", [0, 1, 4])
def test_resuming_in_the_middle(prefetch: int) -> None:
    whole = Batches(Y, 3, seed=1, prefetch=prefetch)
    wanted = [y.tolist() for _ in range(3) for y in whole]
    for stop in range(9):
        first = Batches(Y, 3, seed=1, prefetch=prefetch)
        seen = []
        state = first.state_dict()
        while len(seen) < stop:
            for y in first:
                seen.append(y.tolist())
                state = first.state_dict()
                if len(seen) == stop:
                    break
        second = Batches(Y, 3, seed=77, prefetch=prefetch)
        second.load_state_dict(state)
        while len(seen) < len(wanted):
            for y in second:
                seen.append(y.tolist())
                if len(seen) == len(wanted):
                    break
        assert seen == wanted


def test_a_loop_that_is_left_starts_its_epoch_over() -> None:
    batches = Batches(Y, 3)
    first = [y.tolist() for y in batches]
    batches = Batches(Y, 3)
    next(iter(batches))
    assert [y.tolist() for y in batches] == first


def fail_in(batches: Batches) -> None:
    for _ in batches:
        raise KeyError("the consumer fails")


def test_no_thread_is_left_behind() -> None:
    batches = Batches(Y, 1, prefetch=2)
    for _ in batches:
        break
    gc.collect()
    loop = iter(batches)
    next(loop)
    assert threads() == 1
    loop.close()
    assert threads() == 0
    loop = iter(batches)
    next(loop)
    del loop
    gc.collect()
    assert threads() == 0
    with pytest.raises(KeyError):
        fail_in(batches)
    gc.collect()
    assert threads() == 0


@pytest.mark.parametrize("prefetch", [0, 2])
def test_errors_of_the_transform_reach_the_loop(prefetch: int) -> None:
    def fails(batch: np.ndarray, random: np.random.Generator) -> np.ndarray:
        if 5 in batch:
            raise ValueError("sample 5 is broken")
        return batch

    seen = []
    with pytest.raises(ValueError, match="sample 5 is broken") as caught:
        seen += [y for y in Batches(Y, 2, shuffle=False, transform=fails, prefetch=prefetch)]  # noqa: C416 (what was seen before the error counts)
    assert any(entry.name == "fails" for entry in caught.traceback)
    assert threads() == 0


def test_prefetching_overlaps_with_the_loop() -> None:
    made = [threading.Event() for _ in Y]

    def mark(batch: np.ndarray, random: np.random.Generator) -> np.ndarray:
        made[int(batch[0])].set()
        return batch

    for number, _ in enumerate(Batches(Y, 1, shuffle=False, transform=mark, prefetch=2)):
        # the next two batches are made while this one is in use; the wait ends at once unless they are not
        assert all(event.wait(30) for event in made[number : number + 3])
    made = [threading.Event() for _ in Y]
    for number, _ in enumerate(Batches(Y, 1, shuffle=False, transform=mark, prefetch=0)):
        assert [event.is_set() for event in made] == [later <= number for later in range(len(Y))]


def test_two_loops_at_once() -> None:
    batches = Batches(Y, 5, shuffle=False)
    assert [(a.tolist(), b.tolist()) for a, b in zip(batches, batches, strict=True)] == [
        ([0, 1, 2, 3, 4], [0, 1, 2, 3, 4]),
        ([5, 6, 7, 8, 9], [5, 6, 7, 8, 9]),
    ]


def test_bad_settings_are_refused_with_numbers() -> None:
    with pytest.raises(ShapeError, match="arrays differ in their number of samples: 0 has 10, 1 has 9"):
        Batches((X, Y[:9]), 2)
    with pytest.raises(ShapeError, match="10 samples make no batch of 11"):
        Batches(Y, 11, drop_last=True)
    with pytest.raises(ShapeError, match="0 samples make no batch"):
        Batches(Y[:0], 2)
    with pytest.raises(AttributeValueError, match="batch_size must be at least 1"):
        Batches(Y, 0)
    with pytest.raises(ShapeError, match="is a scalar and has no samples"):
        Batches((X, np.float32(1)), 2)
    with pytest.raises(ShapeError, match="there are no arrays"):
        Batches((), 2)
    with pytest.raises(AttributeValueError, match="seed -1"):
        Batches(Y, 2, seed=-1)
    batches = Batches(Y, 2)
    with pytest.raises(StateError, match="is not the state of Batches"):
        batches.load_state_dict({"epoch": 1})
    with pytest.raises(StateError, match="there are 5 batches of 10 samples here"):
        batches.load_state_dict({**batches.state_dict(), "samples": 11})
