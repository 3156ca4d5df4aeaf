"""Templates of C files, and lists of lines for them."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from string import Template

TEMPLATES = Path(__file__).parent


def template(name: str, values: dict[str, str]) -> str:
    """The template of this name with the values in the places of ``$name``."""
    return Template((TEMPLATES / name).read_text(encoding="utf-8")).substitute(values)


def rows(lines: Iterable[str]) -> str:
    """Indented lines."""
    return "".join(f"    {line}\n" for line in lines)


def runtime_source() -> str:
    """The thread pool, which the library includes."""
    return (TEMPLATES.parent / "runtime.c").read_text(encoding="utf-8")
