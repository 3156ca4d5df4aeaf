"""What the printer (:mod:`irconv.text`) and the parser (:mod:`irconv.parser`) of the IR text share: labels, numbers, attributes.

The grammar, in full (``a*`` any number, ``[a]`` optional, ``a,*`` comma-separated; newlines end statements, and are free
between the parentheses of the header)::

    file       = "irconv" "1" graph
    graph      = "graph" LABEL "(" (leaf [","] [note])* ")" "{" statement* return "}"
    leaf       = ["param" | "frozen" | "buffer" | "state"] NAME ":" type           without a role: an input
    statement  = NAME "=" OP "(" NAME,* ")" (FIELD "=" value)* ":" type [note]
               | "update" NAME "=" NAME
    return     = "return" ([LABEL "="] NAME),*
    type       = DTYPE "[" INTEGER,* "]" [layout]
    layout     = "{" (AXIS | AXIS "%" BLOCK),* "}"
    value      = ATOM | STRING | layout | "[" value,* "]"
    note       = "#" phrase,*                                                      in this order, each at most once:
    phrase     = "backward of" NAME | LABEL ":" INTEGER | "in" LABEL | "part of" LABEL LABEL

An ATOM is a run of letters, digits and ``_ . + - /``; a STRING is as in JSON.  A LABEL is either; a NAME is ``%`` and a
LABEL.  A large constant says ``sha256="..."`` instead of ``value=...``.
"""

from __future__ import annotations

import dataclasses
import json
import math
import re
import types
import typing
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np

from irconv.errors import AttributeValueError, GraphError
from irconv.types import DTYPES, DType, Layout

VERSION = "1"
INLINE_ELEMENTS = 16
"""Constants of at most this many elements stand in the text; larger ones are named by their digest."""

ATOM = r"[A-Za-z0-9_.+\-/]+"
STRING = r'"(?:[^"\\\n]|\\.){0,65536}"'
_ATOM = re.compile(ATOM)
_INTEGER = re.compile(r"-?[0-9]{1,20}")
_NUMBER = re.compile(r"-?[0-9]+(?:\.[0-9]*)?(?:[eE][+-]?[0-9]+)?|-?inf|nan")
_RESERVED = frozenset(("backward", "in", "part", "none"))  # atoms that would be read as something else
_LONGEST_NUMBER = 400
_LARGEST_INTEGER = 2**64


class Atom(str):
    """Bare text: a number, a word or a path; a quoted string is a plain ``str``."""

    __slots__ = ()


def shown(value: Any) -> str:
    """A parsed value for messages, shortened."""
    text = str(value) if isinstance(value, Atom | Layout) else repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


# --- labels --------------------------------------------------------------------------------------------------------------


def quote(text: str) -> str:
    """A JSON string, in ASCII."""
    return json.dumps(text)


def label(text: str) -> str:
    """``text`` bare where that reads back, otherwise quoted."""
    return text if _ATOM.fullmatch(text) and text not in _RESERVED else quote(text)


def value_name(text: str) -> str:
    """The name of a value: ``%conv1.weight``, or ``%"odd name"``."""
    return "%" + (text if _ATOM.fullmatch(text) else quote(text))


# --- numbers -------------------------------------------------------------------------------------------------------------


def float_text(value: Any) -> str:
    """The shortest decimal that reads back (through float64) as the same number of the same type."""
    exact = repr(float(value))
    if not isinstance(value, np.float32 | np.float16):
        return exact
    short = str(value)
    with np.errstate(over="ignore"):
        same = type(value)(float(short)) == value
    return short if same else exact


def element_text(value: Any, dtype: DType) -> str:
    """One element of a constant."""
    if dtype.is_float:
        return float_text(value)
    return ("true" if value else "false") if dtype.kind == "bool" else str(int(value))


def read_element(value: Any, dtype: DType) -> Any:
    """The element of a constant that a parsed value spells.  Raises AttributeValueError when it does not fit ``dtype``."""
    if dtype.kind == "bool":
        return _read_bool(value)
    if dtype.is_integer:
        number = _read_int(value)
        if not dtype.lowest <= number <= dtype.highest:
            raise AttributeValueError(f"{number} does not fit {dtype}")
        return number
    wide = _read_float(value)
    with np.errstate(over="ignore"):
        narrow = dtype.numpy.type(wide)
    if math.isinf(narrow) and not math.isinf(wide):
        raise AttributeValueError(f"{wide} does not fit {dtype}")
    return narrow


# --- attribute fields ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Kind:
    """How attribute values of one type are spelled.

    name:  what messages call it.
    write: value to text.
    read:  parsed value (Atom, str, Layout or list) to value; raises AttributeValueError.
    """

    name: str
    write: Callable[[Any], str]
    read: Callable[[Any], Any]


def _mismatch(name: str, value: Any) -> AttributeValueError:
    return AttributeValueError(f"expected {name}, got {shown(value)}")


def _read_int(value: Any) -> int:
    if not isinstance(value, Atom) or not _INTEGER.fullmatch(value):
        raise _mismatch("an integer", value)
    number = int(value)
    if abs(number) > _LARGEST_INTEGER:
        raise AttributeValueError(f"{number} is beyond 64 bits")
    return number


def _read_float(value: Any) -> float:
    if not isinstance(value, Atom) or len(value) > _LONGEST_NUMBER or not _NUMBER.fullmatch(value):
        raise _mismatch("a number", value)
    number = float(value)
    if math.isinf(number) and not value.endswith("inf"):
        raise AttributeValueError(f"{shown(value)} is too large; spell infinity as inf")
    return number


def _read_bool(value: Any) -> bool:
    if isinstance(value, Atom) and value in ("true", "false"):
        return value == "true"
    raise _mismatch("true or false", value)


def _read_str(value: Any) -> str:
    if isinstance(value, str) and not (isinstance(value, Atom) and value in _RESERVED):
        return str(value)
    raise _mismatch("a word or a string", value)


def _read_dtype(value: Any) -> DType:
    if isinstance(value, Atom) and value in DTYPES:
        return DTYPES[value]
    raise _mismatch(f"an element type ({', '.join(DTYPES)})", value)


def _read_layout(value: Any) -> Layout:
    if isinstance(value, Layout):
        return value
    raise _mismatch("a layout such as {0,2,3,1}", value)


_SIMPLE: dict[Any, Kind] = {
    int: Kind("an integer", lambda v: str(int(v)), _read_int),
    float: Kind("a number", lambda v: repr(float(v)), _read_float),
    bool: Kind("true or false", lambda v: "true" if v else "false", _read_bool),
    str: Kind("a string", label, _read_str),
    DType: Kind("an element type", str, _read_dtype),
    Layout: Kind("a layout", str, _read_layout),
}


def kind_of(annotation: Any) -> Kind:
    """The kind of an attribute field, from its annotation: a simple type, a tuple of one, or ``X | None``."""
    if annotation in _SIMPLE:
        return _SIMPLE[annotation]
    arguments = typing.get_args(annotation)
    if typing.get_origin(annotation) in (types.UnionType, typing.Union) and len(arguments) == 2 and arguments[1] is type(None):
        return _optional(kind_of(arguments[0]))
    if typing.get_origin(annotation) is tuple and len(arguments) == 2 and arguments[1] is ...:
        return _sequence(kind_of(arguments[0]))
    if typing.get_origin(annotation) is tuple and arguments:
        return _fixed([kind_of(a) for a in arguments])
    raise GraphError(f"attributes of type {annotation} have no text form")


def _optional(kind: Kind) -> Kind:
    return Kind(
        f"{kind.name} or none",
        lambda v: "none" if v is None else kind.write(v),
        lambda v: None if isinstance(v, Atom) and v == "none" else kind.read(v),
    )


def _sequence(kind: Kind) -> Kind:
    name = f"a list, each item {kind.name}"

    def read(value: Any) -> tuple[Any, ...]:
        if not isinstance(value, list):
            raise _mismatch(name, value)
        return tuple(kind.read(v) for v in value)

    return Kind(name, lambda v: f"[{','.join(map(kind.write, v))}]", read)


def _fixed(kinds: list[Kind]) -> Kind:
    name = f"a list of {len(kinds)}"

    def write(value: Any) -> str:
        return f"[{','.join(kind.write(v) for kind, v in zip(kinds, value, strict=True))}]"

    def read(value: Any) -> tuple[Any, ...]:
        if not isinstance(value, list) or len(value) != len(kinds):
            raise _mismatch(name, value)
        return tuple(kind.read(v) for kind, v in zip(kinds, value, strict=True))

    return Kind(name, write, read)


@dataclass(frozen=True, slots=True)
class AttributeField:
    """One field of an attribute dataclass; ``default`` is its default value in text, None if it must be given."""

    name: str
    kind: Kind
    default: str | None


@cache
def attribute_fields(attributes: type) -> tuple[AttributeField, ...]:
    """The fields of an attribute dataclass, in order, but for those with the metadata ``text=False``.

    Raises GraphError for a field type without a text form.
    """
    hints = typing.get_type_hints(attributes)
    found = []
    for entry in dataclasses.fields(attributes):
        if not entry.metadata.get("text", True):
            continue
        kind = kind_of(hints[entry.name])
        default = None if entry.default is dataclasses.MISSING else kind.write(entry.default)
        found.append(AttributeField(entry.name, kind, default))
    return tuple(found)
