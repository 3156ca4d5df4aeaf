"""The sample table leaves nothing out: every op, every attribute at several values, every pair of window attributes."""

from __future__ import annotations

import dataclasses
import itertools
import typing
from collections.abc import Iterator
from typing import Any

import pytest

import irconv.ops.custom
import irconv.ops.elementwise
import irconv.ops.pad
import irconv.ops.resize_taps
import irconv.ops.scatter
from irconv.op import OPS, Fusion
from tests.samples import Sample
from tests.samples.table import all_samples

SAMPLES = all_samples()
COMPUTED = [name for name, op in OPS.items() if op.fusion is not Fusion.LEAF]

CHOICES: dict[tuple[str, str], set[Any]] = {
    ("pad", "mode"): set(irconv.ops.pad.MODES),
    ("pad_adjoint", "mode"): set(irconv.ops.pad.MODES) - {"constant"},  # the adjoint of constant padding is a slice
    ("resize", "mode"): set(irconv.ops.resize_taps.MODES),
    ("resize", "coordinates"): set(irconv.ops.resize_taps.COORDINATES),
    ("resize", "rounding"): {None, *irconv.ops.resize_taps.ROUNDINGS},
    ("resize_adjoint", "rounding"): {None, *irconv.ops.resize_taps.ROUNDINGS},
    ("round_to", "format"): set(irconv.ops.elementwise.FLOAT_FORMATS),
    ("scatter", "reduction"): set(irconv.ops.scatter.REDUCTIONS),
    ("resize_adjoint", "mode"): set(irconv.ops.resize_taps.MODES),
    ("resize_adjoint", "coordinates"): set(irconv.ops.resize_taps.COORDINATES),
}
"""Attributes with few possible values: all of them must occur."""

WINDOW_OPS = (
    "conv",
    "conv_transpose",
    "im2col",
    "col2im",
    "max_pool",
    "min_pool",
    "argmax_pool",
    "argmin_pool",
    "window_scatter",
    "window_gather",
    "avg_pool",
    "avg_pool_adjoint",
)

SIMPLE: dict[str, Any] = {
    "kernel": 1,
    "stride": 1,
    "padding": 0,
    "dilation": 1,
    "groups": 1,
    "batch": 1,
    "channels": 1,
    "size": 1,
    "output_size": 1,
    "ceil_mode": False,
    "count_include_pad": True,
    "divisor_override": None,
}
"""The value of each window attribute at which it has no effect, on every axis."""


def samples_of(name: str) -> list[Sample]:
    return [sample for sample in SAMPLES if sample.op == name]


def fields_of(name: str) -> Iterator[tuple[str, Any]]:
    """Names and types of the attributes that belong to the IR."""
    hints = typing.get_type_hints(OPS[name].attributes)
    for field in dataclasses.fields(OPS[name].attributes):
        if field.metadata.get("text", True):
            yield field.name, hints[field.name]


def is_simple(sample: Sample, name: str) -> bool:
    value, simple = getattr(sample.attributes, name), SIMPLE[name]
    if isinstance(value, tuple):
        return all(v == simple or v == (simple, simple) for v in value)
    return value == simple


@pytest.mark.parametrize("name", COMPUTED)
def test_every_op_has_samples(name):
    assert samples_of(name), f"add rows for {name} to tests/samples"


def test_samples_have_ids_of_their_own():
    ids = [sample.id for sample in SAMPLES]
    assert sorted(set(ids)) == sorted(ids)


@pytest.mark.parametrize(("name", "field"), [(n, f) for n in COMPUTED for f in fields_of(n)], ids=str)
def test_every_attribute_takes_several_values(name, field):
    attribute, type_ = field
    seen = {getattr(sample.attributes, attribute) for sample in samples_of(name)}
    choices = {False, True} if type_ is bool else CHOICES.get((name, attribute))
    if choices is not None:
        assert seen == choices
    else:
        assert len(seen) >= 3, f"{name} is only tried with {attribute} in {seen}"


PAIRS = [(name, *pair) for name in WINDOW_OPS for pair in itertools.combinations([f for f, _ in fields_of(name)], 2)]


@pytest.mark.parametrize(("name", "first", "second"), PAIRS)
def test_window_attributes_vary_together(name, first, second):
    together = [s for s in samples_of(name) if not is_simple(s, first) and not is_simple(s, second)]
    assert together, f"no row of {name} has both {first} and {second} at more than their simplest value"
