"""Damage done to ONNX files: bytes changed, lost and added, and fields of the model set to what they should not be."""

from __future__ import annotations

import random
import struct
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from onnx import AttributeProto, ModelProto, NodeProto, TensorProto

from irconv.frontends.onnx.model import OnnxModel  # noqa: F401  # registers the operators
from irconv.frontends.onnx.registry import operators

INTEGERS = (0, 1, -1, 2, 3, 7, 16, 255, 2**16, 2**24, 2**31 - 1, 2**31, -(2**31), 2**33, 2**48, 2**62, 2**63 - 1, -(2**63))
FLOATS = (0.0, -1.0, 1e-45, 1e38, float("nan"), float("inf"), -float("inf"))
TEXTS = (
    "",
    "x" * 5000,
    "a\nb",
    "/* */ system();",
    "%1 = conv(",
    "\0",
    "../outside.bin",
    "ключ",
    "a.b[0]",
    "__class__",
    "graph",
    "\u202e",
)
OPERATORS = (*operators(), "NoSuchOperator")
OUTSIDE = ("../outside.bin", "link.bin", "/etc/passwd", "./../outside.bin", "a/../../outside.bin", "model.onnx", "..\\outside.bin")
"""Where external data may be said to be; ``link.bin`` is a link out of the model's folder."""

MOST_ELEMENTS = 64
"""Long lists of numbers and bytes are weights: they are changed as a whole, not element by element."""


# --- bytes -----------------------------------------------------------------------------------------------------------------


def flip_bytes(data: bytes, chance: random.Random, weights: Sequence[tuple[int, int]]) -> bytes:
    """A few bytes changed, mostly outside of the weights."""
    changed = bytearray(data)
    for _ in range(chance.choice((1, 1, 2, 4, 16))):
        place = _place(len(data), chance, weights)
        changed[place] = chance.choice((changed[place] ^ (1 << chance.randrange(8)), chance.randrange(256), 0, 255))
    return bytes(changed)


def truncate(data: bytes, chance: random.Random, weights: Sequence[tuple[int, int]]) -> bytes:
    return data[: _place(len(data), chance, weights)]


def cut_out(data: bytes, chance: random.Random, weights: Sequence[tuple[int, int]]) -> bytes:
    start = _place(len(data), chance, weights)
    return data[:start] + data[start + chance.choice((1, 2, 10, 1000)) :]


def insert_bytes(data: bytes, chance: random.Random, weights: Sequence[tuple[int, int]]) -> bytes:
    start = _place(len(data), chance, weights)
    return data[:start] + chance.randbytes(chance.choice((1, 2, 10, 100))) + data[start:]


def repeat_bytes(data: bytes, chance: random.Random, weights: Sequence[tuple[int, int]]) -> bytes:
    start = _place(len(data), chance, weights)
    length = chance.choice((1, 10, 100, 1000))
    return data[: start + length] + data[start : start + length] + data[start + length :]


def _place(size: int, chance: random.Random, weights: Sequence[tuple[int, int]]) -> int:
    """A place in the file that is not in the weights, nine times in ten."""
    for _ in range(1000):
        place = chance.randrange(size)
        if chance.random() < 0.1 or not any(start <= place < stop for start, stop in weights):
            return place
    return size - 1


BYTES: tuple[Callable[..., bytes], ...] = (flip_bytes, flip_bytes, truncate, cut_out, insert_bytes, repeat_bytes)


# --- fields ----------------------------------------------------------------------------------------------------------------


def messages(message: Any) -> Iterator[Any]:
    """A message and all inside of it."""
    yield message
    for field, value in message.ListFields():
        if field.message_type is not None:
            for inner in value if _is_list(value) else (value,):
                yield from messages(inner)


def _is_list(value: Any) -> bool:
    return hasattr(value, "__len__") and not isinstance(value, (str, bytes))


def any_field(model: ModelProto, chance: random.Random) -> None:
    """Some field of some message, set or not, gets another value."""
    message = chance.choice(list(messages(model)))
    field = chance.choice(message.DESCRIPTOR.fields)
    value = getattr(message, field.name)
    if _is_list(value):
        _change_list(value, field, chance, model)
    elif field.message_type is not None:
        if chance.random() < 0.5:
            message.ClearField(field.name)
        else:
            _copy_another(value, chance, model)
    elif chance.random() < 0.1:
        message.ClearField(field.name)
    else:
        _assign(message, field, _scalar(field, value, chance, model))


def _assign(message: Any, field: Any, value: Any) -> None:
    try:
        setattr(message, field.name, value)
    except (ValueError, TypeError):  # too large for the field, or not UTF-8
        message.ClearField(field.name)


def _scalar(field: Any, value: Any, chance: random.Random, model: ModelProto) -> Any:
    if field.enum_type is not None:
        return chance.choice([*(v.number for v in field.enum_type.values), 99])
    if isinstance(value, str):
        return chance.choice((chance.choice(TEXTS), chance.choice(names(model))))
    if isinstance(value, bytes):
        cut = value[: chance.randrange(len(value) + 1)]
        return chance.choice((b"", cut, value + b"\0", b"NOTSET", b"linear", chance.randbytes(8)))
    if isinstance(value, float):
        return chance.choice(FLOATS)
    return chance.choice((chance.choice(INTEGERS), int(value) + chance.choice((-1, 1, 2)), chance.randrange(64)))


def _change_list(values: Any, field: Any, chance: random.Random, model: ModelProto) -> None:
    what = chance.choice(("remove", "double", "swap", "change", "change"))
    if field.message_type is not None:
        if not values or what == "change":
            _copy_another(values.add(), chance, model)
        else:
            _rearrange_messages(values, what, chance)
        return
    if len(values) > MOST_ELEMENTS:
        del values[chance.randrange(len(values)) :]
        return
    items = list(values)
    place = chance.randrange(len(items) + 1)
    if what == "remove" and items:
        del items[min(place, len(items) - 1)]
    elif what == "swap":
        chance.shuffle(items)
    else:
        example = items[0] if items else _EMPTY[field.cpp_type]
        new = _scalar(field, example, chance, model)
        items = [*items[:place], new, *items[place + (what == "change") :]]
    del values[:]
    try:
        values.extend(items)
    except (ValueError, TypeError):
        del values[:]


_EMPTY: dict[int, Any] = {1: 0, 2: 0, 3: 0, 4: 0, 5: 0.0, 6: 0.0, 7: False, 8: 0, 9: ""}
"""An element by protobuf's number of its C++ type."""


def _rearrange_messages(values: Any, what: str, chance: random.Random) -> None:
    place = chance.randrange(len(values))
    if what == "remove":
        del values[place]
    elif what == "double":
        values.add().CopyFrom(values[place])
    else:
        values.append(values.pop(place))


def _copy_another(target: Any, chance: random.Random, model: ModelProto) -> None:
    """Make a message a copy of another of its kind."""
    others = [m for m in messages(model) if m.DESCRIPTOR is target.DESCRIPTOR and m.ByteSize() < 100_000]
    copied = type(target)()
    if others:
        copied.CopyFrom(chance.choice(others))
    target.CopyFrom(copied)


def names(model: ModelProto) -> list[str]:
    """All names of tensors."""
    graph = model.graph
    found = [name for node in graph.node for name in (*node.input, *node.output)]
    return [*found, *(each.name for each in (*graph.initializer, *graph.input, *graph.output)), ""]


def dimension(model: ModelProto, chance: random.Random) -> None:
    """A dimension of an input or of a stored tensor."""
    if chance.random() < 0.3 and model.graph.input:
        dims = chance.choice(model.graph.input).type.tensor_type.shape.dim
        if dims:
            chance.choice(dims).dim_value = chance.choice(INTEGERS)
        return
    tensors = [*model.graph.initializer, *(a.t for n in model.graph.node for a in n.attribute if a.type == AttributeProto.TENSOR)]
    if not tensors:
        return
    tensor = chance.choice(tensors)
    sizes = list(tensor.dims)
    what = chance.randrange(4)
    if what == 0 and sizes:
        sizes[chance.randrange(len(sizes))] = chance.choice(INTEGERS)
    elif what == 1:
        chance.shuffle(sizes)
    elif what == 2:
        sizes.append(chance.choice(INTEGERS))
    else:
        sizes = sizes[1:]
    del tensor.dims[:]
    tensor.dims.extend(sizes)


def number(model: ModelProto, chance: random.Random) -> None:
    """A number in a small stored tensor: a size, an axis, a shape, given so that the tensor stays whole."""
    tensors = [*model.graph.initializer, *(a.t for n in model.graph.node for a in n.attribute if a.type == AttributeProto.TENSOR)]
    small = [t for t in tensors if t.data_type == TensorProto.INT64 and 0 < len(t.raw_data) <= 8 * MOST_ELEMENTS]
    if not small:
        return
    tensor = chance.choice(small)
    place = chance.randrange(max(1, len(tensor.raw_data) // 8)) * 8
    packed = chance.choice(INTEGERS).to_bytes(8, "little", signed=True)
    tensor.raw_data = tensor.raw_data[:place] + packed + tensor.raw_data[place + 8 :]


def attribute(model: ModelProto, chance: random.Random) -> None:
    """An attribute of a node."""
    nodes = [node for node in model.graph.node if node.attribute]
    if not nodes:
        return
    chosen = chance.choice(chance.choice(nodes).attribute)
    if chosen.ints:
        chosen.ints[chance.randrange(len(chosen.ints))] = chance.choice(INTEGERS)
    elif chosen.type == AttributeProto.INT:
        chosen.i = chance.choice(INTEGERS)
    elif chosen.type == AttributeProto.FLOAT:
        chosen.f = chance.choice(FLOATS)
    elif chosen.type == AttributeProto.STRING:
        chosen.s = chance.choice((b"SAME_UPPER", b"SAME_LOWER", b"VALID", b"cubic", b"\xff\xfe"))
    else:
        chosen.type = chance.randrange(15)


def wire(model: ModelProto, chance: random.Random) -> None:
    """A node reads or writes another tensor: cycles, names given twice, missing tensors."""
    node = _node(model, chance)
    if node is None:
        return
    slots = node.input if chance.random() < 0.7 else node.output
    name = chance.choice((*chance.choices(names(model), k=3), chance.choice(TEXTS)))
    if slots and chance.random() < 0.7:
        slots[chance.randrange(len(slots))] = name
    else:
        slots.append(name)


def replace_operator(model: ModelProto, chance: random.Random) -> None:
    """A node becomes another operator with the same inputs."""
    node = _node(model, chance)
    if node is None:
        return
    node.op_type = chance.choice(OPERATORS)
    if chance.random() < 0.5:
        del node.attribute[:]
    if chance.random() < 0.3:  # operators that take sizes as inputs
        extra = f"{node.name or 'node'} sizes"
        sizes = [chance.choice(INTEGERS) for _ in range(chance.randrange(5))]
        model.graph.initializer.add(name=extra, data_type=TensorProto.INT64, dims=[len(sizes)], int64_data=sizes)
        node.input.append(extra)


def operator_set(model: ModelProto, chance: random.Random) -> None:
    """Another version of the operators."""
    for each in model.opset_import:
        each.version = chance.choice((0, -1, 1, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 17, 18, 20, 21, 22, 99, 2**62))


def external(model: ModelProto, chance: random.Random) -> None:
    """A stored tensor is said to lie in another file."""
    if not model.graph.initializer:
        return
    tensor = chance.choice(model.graph.initializer)
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    entries = {"location": chance.choice(OUTSIDE), "offset": str(chance.choice(INTEGERS)), "length": str(chance.choice(INTEGERS))}
    for key, value in entries.items():
        if key == "location" or chance.random() < 0.5:
            tensor.external_data.add(key=key, value=value)


def choices(model: ModelProto, chance: random.Random) -> None:
    """A node moves into branches of If inside of branches of If."""
    node = _node(model, chance)
    if node is None:
        return
    copied = NodeProto()
    copied.CopyFrom(node)
    for _ in range(chance.choice((1, 10, 30, 60))):
        outer = NodeProto(op_type="If", output=copied.output, input=["condition"])
        for branch in ("then_branch", "else_branch")[: chance.choice((1, 1, 2))]:
            inner = outer.attribute.add(name=branch, type=AttributeProto.GRAPH).g
            inner.name = branch
            inner.node.add().CopyFrom(copied)
            inner.output.add(name=copied.output[0] if copied.output else "")
        copied = outer
        if copied.ByteSize() > 1_000_000:
            break
    node.CopyFrom(copied)
    model.graph.initializer.add(name="condition", data_type=TensorProto.BOOL, raw_data=b"\1")


def calls(model: ModelProto, chance: random.Random) -> None:
    """Functions that call each other twice, so that all of them together are very long, or call themselves."""
    node = _node(model, chance)
    if node is None or len(node.output) != 1:
        return
    count = chance.choice((1, 3, 12, 40))
    for i in range(count):
        function = model.functions.add(name=f"f{i}", domain="local", input=["x"], output=["y"])
        inner = f"f{i + 1}" if i + 1 < count else chance.choice(("f0", "g", "Relu"))
        domain = "" if inner == "Relu" else "local"
        function.node.add(op_type=inner, domain=domain, input=["x"], output=["between"])
        function.node.add(op_type=inner, domain=domain, input=["between"], output=["y"])
        function.opset_import.add(domain="", version=12)
        function.opset_import.add(domain="local", version=1)
    model.opset_import.add(domain="local", version=1)
    del node.attribute[:], node.input[1:]
    node.domain, node.op_type = "local", "f0"


def loops(model: ModelProto, chance: random.Random) -> None:
    """A node becomes a loop, or loops inside of each other, of any length; what they carry may grow."""
    node = _node(model, chance)
    if node is None or not node.input or not node.output:
        return
    step = NodeProto(op_type=chance.choice(("Add", "Mul", "Concat")), input=["carried", "carried"], output=["more"])
    if step.op_type == "Concat":
        step.attribute.add(name="axis", type=AttributeProto.INT, i=0)
    carried = chance.choice((node.input[0], "count"))
    for depth in range(chance.choice((1, 1, 2, 3))):
        model.graph.initializer.add(name=f"count{depth}", data_type=TensorProto.INT64, int64_data=[chance.choice(INTEGERS)])
        around = NodeProto(op_type="Loop", input=[f"count{depth}", "", "carried"], output=["more"])
        inner = around.attribute.add(name="body", type=AttributeProto.GRAPH).g
        for name in ("i", "go", "carried"):
            inner.input.add(name=name)
        inner.node.add().CopyFrom(step)
        inner.output.add(name="go")
        inner.output.add(name="more")
        step = around
    model.graph.initializer.add(name="count", data_type=TensorProto.FLOAT, dims=[1], float_data=[1])
    step.input[2], step.output[0] = carried, node.output[0]
    node.CopyFrom(step)


def recurrence(model: ModelProto, chance: random.Random) -> None:
    """A recurrent layer over a long constant sequence feeds a node."""
    node = _node(model, chance)
    if node is None or not node.input:
        return
    length = chance.choice((3, 100, 100_000, 2**40))
    model.graph.initializer.add(name="length", data_type=TensorProto.INT64, dims=[3], int64_data=[length, 1, 1])
    kind = chance.choice((("RNN", 1), ("GRU", 3), ("LSTM", 4)))
    for name in ("w", "r"):
        model.graph.initializer.add(name=name, data_type=TensorProto.FLOAT, dims=[1, kind[1], 1], float_data=[0.1] * kind[1])
    model.graph.node.add(op_type="ConstantOfShape", input=["length"], output=["sequence"])
    cell = model.graph.node.add(op_type=kind[0], input=["sequence", "w", "r"], output=["", "last"])
    cell.attribute.add(name="hidden_size", type=AttributeProto.INT, i=1)
    node.input[0] = "last"


def _node(model: ModelProto, chance: random.Random) -> NodeProto | None:
    return chance.choice(model.graph.node) if model.graph.node else None


QUICK: tuple[Callable[[ModelProto, random.Random], None], ...] = (
    any_field,
    any_field,
    any_field,
    dimension,
    number,
    attribute,
    attribute,
    wire,
    wire,
    replace_operator,
    replace_operator,
    operator_set,
    external,
    choices,
)
SLOW: tuple[Callable[[ModelProto, random.Random], None], ...] = (calls, loops, recurrence)
"""What makes models so long that it takes seconds to find out."""

FIELDS = (*QUICK * 3, *SLOW)


# --- both --------------------------------------------------------------------------------------------------------------------


def weight_places(data: bytes) -> list[tuple[int, int]]:
    """Where the larger stored tensors lie in a file."""
    model = ModelProto.FromString(data)
    places = []
    for tensor in model.graph.initializer:
        stored = tensor.raw_data or struct.pack(f"<{len(tensor.float_data)}f", *tensor.float_data)
        if len(stored) > MOST_ELEMENTS and (start := data.find(stored)) >= 0:
            places.append((start, start + len(stored)))
    return places


def mutated(data: bytes, seed: int, weights: Sequence[tuple[int, int]]) -> tuple[bytes, str]:
    """A damaged copy of a model file, always the same one for a seed, and what was done to it."""
    chance = random.Random(seed)
    if chance.random() < 0.3:
        damage = chance.choice(BYTES)
        return damage(data, chance, weights), damage.__name__
    model = ModelProto.FromString(data)
    done = []
    for _ in range(chance.choice((1, 1, 1, 2, 3))):
        change = chance.choice(FIELDS)
        change(model, chance)
        done.append(change.__name__)
    return model.SerializeToString(), ", ".join(done)
