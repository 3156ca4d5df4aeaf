"""The parser of the IR text (grammar in :mod:`irconv.syntax`).

The text is untrusted: every input gives a graph or a :class:`ParseError` with the line and an excerpt, in time and memory
proportional to its length.  Nodes are built through ``Graph.add``, so type rules run again and must give the stated types.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import numpy as np

from irconv.errors import AttributeValueError, IrconvError, ParseError, StateError
from irconv.graph import NOWHERE, Composite, Graph, Node, Provenance
from irconv.op import OPS, OpDef
from irconv.places import Location
from irconv.state import Variable
from irconv.syntax import VERSION, Atom, attribute_fields, read_element, shown, value_name
from irconv.tokens import Tokens
from irconv.types import DTYPES, Layout, TensorType, tensor_type

# A node costs about two kilobytes and an operand half of one: with these bounds no text needs more than a gigabyte.
MAX_TEXT = 2**25
MAX_NODES = 2**18
MAX_OPERANDS = 2**20
MAX_ITEMS = 4096
MAX_DEPTH = MAX_RANK = 64
MAX_BLOCK = 2**16

_SIGNATURE_OPS = ("input", "state")
_T = TypeVar("_T")


def parse(
    text: str,
    constants: Mapping[str, np.ndarray] | None = None,
    state: Mapping[str, Variable] | None = None,
    source: str = "<text>",
) -> Graph:
    """The graph that an IR text describes.

    constants: the large constants, by digest.
    state:     variables to bind to the graph's states, by name; states not given stay unbound, surplus ones are ignored.
    source:    file name for messages.

    Raises ParseError, with the line, for anything that is not a graph, and StateError for a variable of the wrong type.
    """
    if len(text) > MAX_TEXT:
        raise ParseError(f"the text has {len(text)} characters, more than {MAX_TEXT}", location=Location(source, 1))
    graph = _Parser(text, source, constants or {}).file()
    for node_id in graph.states:
        node = graph[node_id]
        variable = (state or {}).get(node.name)
        if variable is None:
            continue
        if variable.type != node.type:
            raise StateError(f"%{node.name} is {node.type}, but the variable given for it is {variable.type}")
        graph.state[node.name] = variable
    return graph


class _Parser(Tokens):
    """Recursive descent: one method a rule of the grammar."""

    def __init__(self, text: str, source: str, constants: Mapping[str, np.ndarray]):
        super().__init__(text, source)
        self.constants = constants
        self.graph = Graph()
        self.operand_count = 0
        self.advance()

    def guard(self, action: Callable[[], _T], about: str, position: int | None = None) -> _T:
        """Run ``action``; what it raises becomes a ParseError at ``position``."""
        try:
            return action()
        except IrconvError as error:
            raise self.error(f"{about}: {error.message}", error.hint, position) from error
        except (ArithmeticError, LookupError, TypeError, ValueError) as error:
            # attributes that a type rule did not foresee
            raise self.error(f"{about} does not work: {error}", None, position) from error

    # --- structure -----------------------------------------------------------------------------------------------------

    def file(self) -> Graph:
        self.skip_newlines()
        self.expect("irconv")
        if not self.at(VERSION):
            self.fail(f"expected format version {VERSION}, got {self.found()}", "write it again with this version of irconv")
        self.advance()
        self.end_line()
        self.expect("graph")
        self.graph.name = self.label("the name of the graph")
        self.leaves()
        self.expect("{")
        self.end_line()
        while not self.accept("return"):
            self.statement()
        self.results()
        self.expect("}")
        self.skip_newlines()
        if self.kind != "end":
            self.fail(f"expected nothing after the graph, got {self.found()}")
        return self.graph

    def leaves(self) -> None:
        self.expect("(")
        self.skip_newlines()
        while not self.accept(")"):
            node = self.leaf()
            more = self.accept(",")
            if self.at("#"):
                self.graph.set_provenance(node.id, self.note())
                self.end_line()
            self.skip_newlines()
            if not more and not self.at(")"):
                self.fail(f"expected ',' or ')', got {self.found()}")

    def leaf(self) -> Node:
        position = self.start
        role = None if self.kind == "name" else self.label("an input or a state")
        name = self.new_name()
        self.expect(":")
        type_ = self.type()
        if role is None:
            return self.graph.add_input(name, type_)
        add_state = self.graph.add_state
        return self.guard(lambda: add_state(name, type_, role), value_name(name), position)

    def statement(self) -> None:
        if self.accept("update"):
            self.update()
        elif self.kind == "name":
            self.node()
        else:
            self.fail(f"expected a %name, 'update' or 'return', got {self.found()}")
        self.end_line()

    def update(self) -> None:
        position = self.start
        state = self.known()
        self.expect("=")
        value = self.known()
        if state in self.graph.updates:
            self.fail(f"{value_name(self.graph[state].name)} is updated twice", position=position)
        self.guard(lambda: self.graph.set_update(state, value), "update", position)

    def node(self) -> None:
        name = self.new_name()
        self.expect("=")
        position = self.start
        op = self.op()
        operands = self.operands()
        fields = self.fields(op)
        self.expect(":")
        stated = self.type()
        provenance = self.note()
        build = self.constant if op.name == "constant" else self.attributes
        attributes = self.guard(lambda: build(op, fields, stated), op.name, position)
        add = self.graph.add
        node = self.guard(lambda: add(op, attributes, operands, name=name, provenance=provenance), op.name, position)
        if stated.layout is not None and node.type.layout is None and not node.is_leaf:
            node = self.graph.set_layout(node.id, stated.layout)
        if node.type != stated:
            message = f"{value_name(name)} is {node.type} by the rule of {op.name}, but the text says {stated}"
            self.fail(message, position=position)

    def results(self) -> None:
        while self.kind != "newline":
            position = self.start
            path = ""
            if self.kind != "name":
                path = self.label("an output")
                self.expect("=")
            if path in self.graph.outputs:
                self.fail(f"output {shown(path)} is returned twice", position=position)
            if len(self.graph.outputs) >= MAX_NODES:
                self.fail(f"the graph has more than {MAX_NODES} outputs", position=position)
            self.graph.set_output(path, self.known())
            if not self.accept(","):
                break
        self.end_line()

    # --- parts of a statement ------------------------------------------------------------------------------------------

    def new_name(self) -> str:
        position = self.start
        name = self.name()
        if not name:
            self.fail("a value needs a name", position=position)
        if self.graph.has_name(name):
            self.fail(f"{value_name(name)} is defined twice", position=position)
        if len(self.graph) >= MAX_NODES:
            self.fail(f"the graph has more than {MAX_NODES} values", position=position)
        return name

    def known(self) -> int:
        """The id of a value defined above."""
        position = self.start
        name = self.name()
        if not self.graph.has_name(name):
            self.fail(f"{shown(Atom(value_name(name)))} is not defined", "values stand above their readers", position)
        return self.graph[name].id

    def op(self) -> OpDef:
        position = self.start
        name = self.label("the name of an op")
        if name in _SIGNATURE_OPS:
            self.fail(f"{name} is no statement", "inputs and states stand between the parentheses of the graph", position)
        if name not in OPS:
            self.fail(f"there is no op {shown(Atom(name))}", _close(name, OPS), position)
        return OPS[name]

    def operands(self) -> list[int]:
        self.expect("(")
        ids: list[int] = []
        while not self.accept(")"):
            if ids:
                self.expect(",")
            ids.append(self.known())
        self.operand_count += len(ids)
        if self.operand_count > MAX_OPERANDS:
            self.fail(f"the graph has more than {MAX_OPERANDS} operands")
        return ids

    def fields(self, op: OpDef) -> dict[str, Any]:
        """The attributes as written: text, lists, layouts."""
        fields: dict[str, Any] = {}
        while self.kind == "atom":
            position = self.start
            name = self.label("an attribute")
            self.expect("=")
            if name in fields:
                self.fail(f"{op.name}: attribute {name} is given twice", position=position)
            fields[name] = self.value(0, [MAX_ITEMS])
        return fields

    def value(self, depth: int, left: list[int]) -> Any:
        """One value as written; ``left`` counts down the items that it may still have."""
        left[0] -= 1
        if depth > MAX_DEPTH or left[0] < 0:
            self.fail(f"a value has more than {MAX_ITEMS} items, or is nested deeper than {MAX_DEPTH}")
        if self.at("{"):
            return self.layout()
        if self.kind == "string":
            return self.string()
        if self.kind == "atom":
            return Atom(self.advance())
        self.expect("[")
        items: list[Any] = []
        while not self.accept("]"):
            if items:
                self.expect(",")
            items.append(self.value(depth + 1, left))
        return items

    def type(self) -> TensorType:
        position = self.start
        dtype = self.label("a type")
        if dtype not in DTYPES:
            self.fail(f"{shown(Atom(dtype))} is not an element type", f"use one of {', '.join(DTYPES)}", position)
        self.expect("[")
        shape: list[int] = []
        while not self.accept("]"):
            if shape:
                self.expect(",")
            shape.append(self.integer())
            if len(shape) > MAX_RANK:
                self.fail(f"a type has more than {MAX_RANK} dimensions")
        layout = self.layout() if self.at("{") else None
        return self.guard(lambda: tensor_type(dtype, shape, layout), "type", position)

    def layout(self) -> Layout:
        self.expect("{")
        axes: list[tuple[int, int]] = []
        while not self.accept("}"):
            if axes:
                self.expect(",")
            if self.kind == "block":
                axis, block = self.advance().split("%")
                if len(axis) > 2 or len(block) > 5 or not 1 <= int(block) <= MAX_BLOCK:
                    self.fail(f"a block is not within 1 to {MAX_BLOCK}")
                axes.append((int(axis), int(block)))
            else:
                axes.append((self.integer(), 0))
            if len(axes) > 2 * MAX_RANK:
                self.fail("a layout has too many axes")
        return Layout(tuple(axes))

    def note(self) -> Provenance:
        """What follows ``#``: the phrases in their order, separated by commas."""
        if not self.accept("#"):
            return NOWHERE
        origin = location = composite = None
        scope, more = "", True
        if self.accept("backward"):
            self.expect("of")
            origin = self.name()
            more = self.accept(",")
        if more and not self.at("in") and not self.at("part"):
            file = self.label("file:line, 'in' or 'part of'")
            self.expect(":")
            location = Location(file, self.integer())
            more = self.accept(",")
        if more and self.accept("in"):
            scope = self.label("a scope")
            more = self.accept(",")
        if more:
            self.expect("part")
            self.expect("of")
            composite = Composite(self.label("the kind of a composite"), self.label("the instance of a composite"))
        return Provenance(location, scope, composite, origin)

    # --- attributes ----------------------------------------------------------------------------------------------------

    def attributes(self, op: OpDef, fields: dict[str, Any], stated: TensorType) -> Any:
        """The attribute dataclass of ``op`` from the fields as written, read as its annotations say."""
        known = {f.name: f for f in attribute_fields(op.attributes)}
        values = {}
        for name, written in fields.items():
            if name not in known:
                hint = _close(name, known) or (f"it has {', '.join(known)}" if known else "it has none")
                raise AttributeValueError(f"there is no attribute {shown(Atom(name))}", hint=hint)
            try:
                values[name] = known[name].kind.read(written)
            except AttributeValueError as error:
                raise AttributeValueError(f"attribute {name}: {error.message}") from None
        missing = [name for name, f in known.items() if f.default is None and name not in values]
        if missing:
            raise AttributeValueError(f"attribute {missing[0]} is missing", hint=f"it is {known[missing[0]].kind.name}")
        return op.attributes(**values)

    def constant(self, op: OpDef, fields: dict[str, Any], stated: TensorType) -> Any:
        """The attributes of a constant: elements in the text, or a digest."""
        if set(fields) == {"value"}:
            elements = [read_element(e, stated.dtype) for e in _flat(fields["value"], stated.shape)]
            return op.attributes(np.array(elements, stated.dtype.numpy).reshape(stated.shape))
        if set(fields) != {"sha256"} or not isinstance(fields["sha256"], str):
            raise AttributeValueError('a constant has value=... or sha256="..."')
        digest = str(fields["sha256"])
        if digest not in self.constants:
            raise AttributeValueError(
                f"the array with digest {shown(digest)} was not given",
                hint="read the file with irconv.load, so that the .safetensors beside it is found, or pass constants=...",
            )
        array = np.asarray(self.constants[digest])
        # the graph's copy must not change when the caller writes to theirs
        attributes = op.attributes(array.copy() if array.flags.writeable else array)
        if attributes.digest != digest:
            raise AttributeValueError(f"the array given for digest {digest} has digest {attributes.digest}")
        return attributes


def _flat(value: Any, shape: tuple[int, ...]) -> list[Any]:
    """Nested lists of the given shape as one list; an empty array is written ``[]``."""
    if not shape:
        return [value]
    expected = 0 if 0 in shape else shape[0]
    if not isinstance(value, list) or len(value) != expected:
        raise AttributeValueError(f"attribute value: expected a list of {expected}, got {shown(value)}")
    return [element for item in value for element in _flat(item, shape[1:])]


def _close(name: str, known: Mapping[str, Any]) -> str | None:
    """A hint with the known names that look like ``name``."""
    close = difflib.get_close_matches(name, known, n=3) if len(name) < 64 else []
    return f"did you mean {' or '.join(close)}?" if close else None
