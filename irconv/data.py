"""Shuffled minibatches, prepared ahead by a thread."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np

from irconv import structure
from irconv.concrete import as_array
from irconv.errors import AttributeValueError, ShapeError, StateError
from irconv.ops.random import philox_bits

SHUFFLE_STREAM = (0xBA7C4E5, 0)
"""Stream of the numbers that an epoch's order is sorted by."""


class Batches:
    """Minibatches of arrays, in a new order each epoch: ``for images, labels in Batches((images, labels), 64)``.

    arrays:    an array, or a tuple or dict of arrays, whose first axis counts the samples; batches have the same structure.
    shuffle:   sort each epoch's samples by random numbers made from ``seed`` and the epoch's number; the same on every machine.
    drop_last: leave out a last batch that is smaller.
    transform: ``transform(batch, random)`` returns the batch to deliver; ``random`` is a ``numpy.random.Generator`` made for
               each batch from seed, epoch and the batch's number.
    prefetch:  how many batches a thread prepares ahead; 0: none, everything happens in the loop.

    Going through all batches once is an epoch.  A loop that is left early starts its epoch over.  ``state_dict()`` says where
    a loop is, and after ``load_state_dict`` the next loop goes on from there.
    """

    def __init__(
        self,
        arrays: Any,
        batch_size: int,
        shuffle: bool = True,
        seed: int = 0,
        drop_last: bool = False,
        transform: Callable[[Any, np.random.Generator], Any] | None = None,
        prefetch: int = 2,
    ):
        self.arrays = structure.map_leaves(lambda path, leaf: as_array(leaf), arrays)
        self.samples = _sample_count(self.arrays)
        if batch_size < 1 or prefetch < 0:
            raise AttributeValueError(
                f"batch_size must be at least 1 and prefetch at least 0, got {batch_size} and {prefetch}"
            )
        if not 0 <= seed < 2**64:
            raise AttributeValueError(f"seed {seed} is not an integer from 0 to 2^64 - 1")
        self.batch_size, self.shuffle, self.seed = batch_size, shuffle, seed
        self.drop_last, self.transform, self.prefetch = drop_last, transform, prefetch
        if len(self) == 0:
            raise ShapeError(
                f"{self.samples} samples make no batch of {batch_size}", hint="lower batch_size, or keep the last batch"
            )
        self.epoch = 0
        self.position = 0
        self._resume = 0

    def __len__(self) -> int:
        """How many batches an epoch has."""
        whole, rest = divmod(self.samples, self.batch_size)
        return whole + (1 if rest and not self.drop_last else 0)

    def order(self, epoch: int) -> np.ndarray:
        """The samples in the order of an epoch."""
        if not self.shuffle:
            return np.arange(self.samples)
        key = np.array([self.seed & 0xFFFFFFFF, self.seed >> 32], np.uint32)
        return np.argsort(philox_bits(key, epoch, SHUFFLE_STREAM, self.samples), kind="stable")

    def batch(self, epoch: int, number: int, order: np.ndarray | None = None) -> Any:
        """One batch of an epoch."""
        rows = self.order(epoch) if order is None else order
        chosen = rows[number * self.batch_size : (number + 1) * self.batch_size]
        made = structure.map_leaves(lambda path, array: array[chosen], self.arrays)
        if self.transform is None:
            return made
        return self.transform(made, np.random.default_rng([self.seed, epoch, number]))

    def __iter__(self) -> Iterator[Any]:
        start, self._resume = self._resume, 0
        self.position = start
        source = self._prefetched(start) if self.prefetch else self._prepared(start)
        for made in source:
            self.position += 1
            if self.position == len(self):
                # the epoch counts as done once its last batch is handed out
                self.epoch, self.position = self.epoch + 1, 0
            yield made

    def _prepared(self, start: int) -> Iterator[Any]:
        epoch = self.epoch
        order = self.order(epoch)
        for number in range(start, len(self)):
            yield self.batch(epoch, number, order)

    def _prefetched(self, start: int) -> Iterator[Any]:
        ready: queue.Queue[tuple[str, Any]] = queue.Queue(self.prefetch)
        stop = threading.Event()
        worker = threading.Thread(
            target=_work, args=(self._prepared(start), ready, stop), daemon=True, name="irconv-batches"
        )
        worker.start()
        try:
            while True:
                kind, item = ready.get()
                if kind == "error":
                    raise item
                if kind == "end":
                    return
                yield item
        finally:
            stop.set()
            while worker.is_alive():  # it may be waiting for room in the queue
                _drain(ready)
                worker.join(0.01)

    def state_dict(self) -> dict[str, int]:
        """Where the loop is: seed, epoch, and how many of its batches have been handed out."""
        return {"seed": self.seed, "epoch": self.epoch, "position": self.position, "samples": self.samples}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Let the next loop go on where a saved one was."""
        if set(state) != {"seed", "epoch", "position", "samples"}:
            raise StateError(f"{sorted(state)} is not the state of Batches")
        if int(state["samples"]) != self.samples or not 0 <= int(state["position"]) < len(self):
            raise StateError(
                f"the state is at batch {state['position']} of {state['samples']} samples; "
                f"there are {len(self)} batches of {self.samples} samples here"
            )
        self.seed, self.epoch = int(state["seed"]), int(state["epoch"])
        self.position = self._resume = int(state["position"])


def _sample_count(arrays: Any) -> int:
    sizes = {}
    for path, array in structure.leaves(arrays):
        if array.ndim == 0:
            raise ShapeError(f"array {path!r} is a scalar and has no samples")
        sizes[path] = len(array)
    if not sizes:
        raise ShapeError("there are no arrays to make batches of")
    if len(set(sizes.values())) > 1:
        described = ", ".join(f"{path} has {n}" for path, n in sizes.items())
        raise ShapeError(f"arrays differ in their number of samples: {described}")
    return next(iter(sizes.values()))


def _work(batches: Iterator[Any], ready: queue.Queue[tuple[str, Any]], stop: threading.Event) -> None:
    """What the thread does: put batches until told to stop; an error is handed to the consumer."""
    try:
        for made in batches:
            ready.put(("batch", made))
            if stop.is_set():
                return
        ready.put(("end", None))
    except BaseException as error:
        ready.put(("error", error))


def _drain(ready: queue.Queue[tuple[str, Any]]) -> None:
    try:
        while True:
            ready.get_nowait()
    except queue.Empty:
        return
