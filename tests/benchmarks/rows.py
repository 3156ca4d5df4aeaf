"""The rows of the comparisons: which network, forward or training, at which batch size, and its inputs."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from irconv.bench.task import Task
from irconv.loading import InputSpecs
from irconv.types import TensorSpec

EXAMPLES = Path(__file__).resolve().parents[2] / "examples" / "models"

IMAGES = {
    "lenet": (1, 28, 28),
    "resnet18": (3, 224, 224),
    "resnet34": (3, 224, 224),
    "resnet50": (3, 224, 224),
    "vgg11": (3, 224, 224),
    "vgg16": (3, 224, 224),
    "mobilenet_v2": (3, 224, 224),
    "unet": (3, 128, 128),
}
FILES = {"resnet18": "resnet", "resnet34": "resnet", "resnet50": "resnet", "vgg11": "vgg", "vgg16": "vgg"}
"""Files of networks that are not called after their file."""


@dataclass(frozen=True)
class Row:
    """``forward:MODEL:BATCH`` or ``train:MODEL:BATCH``."""

    kind: str
    model: str
    batch: int

    @property
    def trains(self) -> bool:
        return self.kind == "train"

    @property
    def task(self) -> Task:
        """What the sides of a race are told."""
        file = EXAMPLES / f"{FILES.get(self.model, self.model)}.py"
        return Task(f"{file}:{self.model}", self.trains, torch=f"{EXAMPLES / 'torch_twins.py'}:{self.model}")

    @property
    def inputs(self) -> InputSpecs:
        """A batch of images."""
        return InputSpecs((TensorSpec((self.batch, *IMAGES[self.model])),))

    def __str__(self) -> str:
        return f"{self.kind}:{self.model}:{self.batch}"


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
