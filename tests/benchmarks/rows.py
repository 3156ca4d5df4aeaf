"""The rows of the comparison: which network, forward or training, at which batch size, and its inputs."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import click
import numpy as np

LEARNING_RATE = 0.01
MOMENTUM = 0.9
STEPS = 10
"""Training steps whose losses are compared."""

IMAGES = {
    "lenet": (1, 28, 28),
    "resnet18": (3, 224, 224),
    "resnet34": (3, 224, 224),
    "mobilenet_v2": (3, 224, 224),
    "unet": (3, 128, 128),
}
CLASSES = {"lenet": 10, "resnet18": 1000, "resnet34": 1000, "mobilenet_v2": 1000, "unet": 2}

DEFAULT_ROWS = (
    "forward:lenet:64",
    "forward:resnet18:1",
    "forward:mobilenet_v2:1",
    "forward:unet:1",
    "train:lenet:64",
    "train:resnet18:8",
    "train:unet:4",
)


@dataclass(frozen=True)
class Row:
    """``forward:MODEL:BATCH`` or ``train:MODEL:BATCH``."""

    kind: str
    model: str
    batch: int

    @property
    def trains(self) -> bool:
        return self.kind == "train"

    def inputs(self) -> dict[str, np.ndarray]:
        """A batch of random images, and for training their classes (one for each image, or for each pixel)."""
        generator = np.random.default_rng(0)
        x = generator.standard_normal((self.batch, *IMAGES[self.model]), np.float32)
        if not self.trains:
            return {"x": x}
        shape = (self.batch, *IMAGES[self.model][1:]) if self.model == "unet" else (self.batch,)
        return {"x": x, "target": generator.integers(0, CLASSES[self.model], shape)}

    def __str__(self) -> str:
        return f"{self.kind}:{self.model}:{self.batch}"


def random_state(shapes: Mapping[str, tuple[int, ...]]) -> dict[str, np.ndarray]:
    """Weights under which every layer's output is about as large as its input, and batch norms that do something.

    (Under the usual random start, values fade away layer by layer, and all that is left to compare is the last bias.)
    """
    generator = np.random.default_rng(1)
    state = {}
    for name, shape in shapes.items():
        if len(shape) > 1:
            values = generator.standard_normal(shape) * math.sqrt(2 / math.prod(shape[1:]))
        elif name.endswith(("weight", "running_var")):
            values = generator.uniform(0.5, 1.5, shape)
        else:
            values = 0.1 * generator.standard_normal(shape)
        state[name] = values.astype(np.float32)
    return state


def parse(text: str) -> Row:
    """The row written so."""
    found = re.fullmatch(r"(forward|train):(\w+):([1-9]\d*)", text)
    if found is None or found[2] not in IMAGES:
        known = ", ".join(IMAGES)
        raise click.BadParameter(f"{text!r} is not forward:MODEL:BATCH or train:MODEL:BATCH with MODEL one of {known}")
    return Row(found[1], found[2], int(found[3]))


class RowType(click.ParamType):
    """A row on the command line."""

    name = "row"

    def convert(self, value: Any, parameter: Any, context: Any) -> Row:
        return value if isinstance(value, Row) else parse(value)
