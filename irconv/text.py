"""The IR text form: for people, diffs and tests, and for files.  Printing and parsing are exact inverses.

The grammar is in :mod:`irconv.syntax`, the parser in :mod:`irconv.parser`.  Arrays do not stand in the text, except small
constants: :func:`save` writes them to a ``.safetensors`` file beside it, and :func:`load` brings them back.
"""

from __future__ import annotations

import importlib
import json
import os
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from irconv.errors import ModelError
from irconv.graph import PRINTERS, Graph, Node
from irconv.parser import MAX_TEXT, parse
from irconv.state import Variable
from irconv.syntax import INLINE_ELEMENTS, VERSION, attribute_fields, element_text, label, quote, value_name
from irconv.types import as_dtype

__all__ = ["large_constants", "load", "parse", "print_graph", "save"]

_WIDTH = 120

# --- printing --------------------------------------------------------------------------------------------------------------


def print_graph(graph: Graph, locations: bool = True) -> str:
    """The text of a graph, the same byte for byte for the same program.

    locations: whether to say the user's file and line of each node.
    """
    names = {node.id: value_name(node.name) for node in graph}
    signature = {*graph.inputs, *graph.states}
    lines = [f"irconv {VERSION}", *_header(graph, locations)]
    for node in graph:
        if node.id not in signature:
            operands = ", ".join([names[i] for i in node.operands])
            attributes = "".join([f" {a}" for a in _attributes(node)])
            statement = f"  {names[node.id]} = {node.op.name}({operands}){attributes} : {node.type}"
            lines.append(statement + _note(node, locations))
    lines.extend(f"  update {names[state]} = {names[value]}" for state, value in graph.updates.items())
    outputs = ", ".join((f"{label(path)} = " if path else "") + names[i] for path, i in graph.outputs.items())
    lines.append(f"  return {outputs}".rstrip())
    lines.append("}\n")
    return "\n".join(lines)


PRINTERS["text"] = print_graph


def _header(graph: Graph, locations: bool) -> list[str]:
    """The signature on one line if it is short and says no more than names and types, else one leaf a line."""
    leaves = [graph[i] for i in (*graph.inputs, *graph.states)]
    items = [_leaf(node) for node in leaves]
    notes = [_note(node, locations) for node in leaves]
    line = f"graph {label(graph.name)}({', '.join(items)}) {{"
    if len(line) <= _WIDTH and not any(notes):
        return [line]
    listed = [f"  {item},{note}" for item, note in zip(items, notes, strict=True)]
    return [f"graph {label(graph.name)}(", *listed, ") {"]


def _leaf(node: Node) -> str:
    role = f"{node.attributes.role} " if node.op.name == "state" else ""
    return f"{role}{value_name(node.name)}: {node.type}"


def _attributes(node: Node) -> list[str]:
    """The attributes as ``name=value``, without those that have their default value."""
    if node.op.name == "constant":
        return [_constant(node)]
    if node.op.name in ("input", "state"):
        return []
    written = []
    for field in attribute_fields(node.op.attributes):
        text = field.kind.write(getattr(node.attributes, field.name))
        if text != field.default:
            written.append(f"{field.name}={text}")
    return written


def _constant(node: Node) -> str:
    value: np.ndarray = node.attributes.value
    if _is_inline(value):
        return f"value={_nested(value) if value.size else '[]'}"
    return f"sha256={quote(node.attributes.digest)}"


def _is_inline(value: np.ndarray) -> bool:
    """Small enough for the text, and without NaNs of other bits than the usual ones."""
    if value.size > INLINE_ELEMENTS:
        return False
    if value.dtype.kind != "f":
        return True
    usual = np.where(np.isnan(value), value.dtype.type("nan"), value)
    return usual.tobytes() == value.tobytes()


def _nested(value: np.ndarray) -> str:
    if value.ndim == 0:
        return element_text(value[()], as_dtype(value.dtype))
    return f"[{','.join(_nested(item) for item in value)}]"


def _note(node: Node, locations: bool) -> str:
    """Where a node comes from, as a comment that the parser reads back."""
    where = node.provenance
    phrases = []
    if where.origin is not None:
        phrases.append(f"backward of {value_name(where.origin)}")
    if where.location is not None and locations:
        phrases.append(f"{label(where.location.file)}:{where.location.line}")
    if where.scope:
        phrases.append(f"in {label(where.scope)}")
    if where.composite is not None:
        phrases.append(f"part of {label(where.composite.kind)} {label(where.composite.instance)}")
    return f"  # {', '.join(phrases)}" if phrases else ""


# --- files -----------------------------------------------------------------------------------------------------------------

_CONSTANT, _STATE, _SHARED = "constant/", "state/", "shared"


def large_constants(graph: Graph) -> dict[str, np.ndarray]:
    """The constants that do not stand in the text, by digest: what :func:`parse` needs besides it."""
    constants = [node.attributes for node in graph if node.op.name == "constant"]
    return {c.digest: c.value for c in constants if not _is_inline(c.value)}


def save(graph: Graph, path: str | os.PathLike[str]) -> None:
    """Write the text of a graph to ``path``, its large constants and its states to ``path`` + ``.safetensors``.

    Each file is written whole under another name and then moved into place.  Raises ModelError if that is not possible.
    """
    target, library = Path(path), _safetensors()
    arrays = {_CONSTANT + digest: value for digest, value in large_constants(graph).items()}
    first_name: dict[int, str] = {}
    shared: dict[str, str] = {}
    for name, variable in graph.state.items():
        if id(variable) in first_name:
            shared[name] = first_name[id(variable)]
            continue
        first_name[id(variable)] = name
        arrays[_STATE + name] = _host(variable.array)
    text = print_graph(graph).encode()
    try:
        if arrays:
            _write(_beside(target), lambda temporary: library.numpy.save_file(arrays, temporary, {_SHARED: json.dumps(shared)}))
        else:
            _beside(target).unlink(missing_ok=True)
        _write(target, lambda temporary: temporary.write_bytes(text))
    except (OSError, library.SafetensorError) as error:
        raise ModelError(f"cannot write {target}: {error}", hint="check that the folder exists and can be written") from error


def load(path: str | os.PathLike[str]) -> Graph:
    """Read what :func:`save` wrote; states are bound to new variables.

    Raises ModelError if a file cannot be read, ParseError if the text is not a graph, StateError if an array does not fit.
    """
    source, library = Path(path), _safetensors()
    try:
        if source.stat().st_size > MAX_TEXT:
            raise ModelError(f"{source} is larger than {MAX_TEXT} bytes, too large for IR text")
        text = source.read_bytes().decode()
        constants, state = _read_arrays(_beside(source))
    except (OSError, library.SafetensorError, UnicodeDecodeError, ValueError, TypeError, KeyError) as error:
        if isinstance(error, ModelError):
            raise
        raise ModelError(f"cannot read {source}: {error}", hint="is it a file that irconv wrote?") from error
    return parse(text, constants, state, source=str(path))


def _safetensors() -> Any:
    """The library, imported where files are read or written: ``import irconv`` does without it."""
    importlib.import_module("safetensors.numpy")
    return importlib.import_module("safetensors")


def _host(array: Any) -> np.ndarray:
    """An array of any device as a contiguous NumPy array."""
    return np.asarray(array.get() if hasattr(array, "__cuda_array_interface__") else array, order="C")


def _beside(path: Path) -> Path:
    return path.with_name(path.name + ".safetensors")


def _write(target: Path, write: Callable[[Path], Any]) -> None:
    """Let ``write`` fill a file beside ``target``, then move it there in one step."""
    temporary = target.with_name(f".{target.name}.{uuid.uuid4().hex}.tmp")
    try:
        write(temporary)
        os.replace(temporary, target)
    finally:
        temporary.unlink(missing_ok=True)


def _read_arrays(path: Path) -> tuple[dict[str, np.ndarray], dict[str, Variable]]:
    """Constants by digest and variables by state name; states that shared one variable share one again."""
    constants: dict[str, np.ndarray] = {}
    state: dict[str, Variable] = {}
    if not path.exists():
        return constants, state
    with _safetensors().safe_open(path, framework="numpy") as file:
        for key in file.keys():  # noqa: SIM118 -- not a mapping
            if key.startswith(_CONSTANT):
                array = constants[key.removeprefix(_CONSTANT)] = file.get_tensor(key)
                array.flags.writeable = False
            elif key.startswith(_STATE):
                state[key.removeprefix(_STATE)] = Variable(file.get_tensor(key))
        shared = json.loads((file.metadata() or {}).get(_SHARED, "{}"))
    for name, first in shared.items():
        state[name] = state[first]
    return constants, state
