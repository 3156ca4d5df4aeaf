"""All samples of all families."""

from importlib import import_module

from tests.samples import Sample

FAMILIES = (
    "elementwise", "shape", "pad", "index", "reduce", "contract", "conv", "pool", "resize", "scan", "scatter", "sort", "random",
    "custom",
)  # fmt: skip


def all_samples() -> list[Sample]:
    """Every row of the table, family by family."""
    return [sample for family in FAMILIES for sample in import_module(f"tests.samples.{family}").SAMPLES]
