"""The IR text form: what it looks like, that it round-trips exactly, files, and messages for what is not a graph."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import irconv.ops.elementwise as ops
from irconv.builder import Builder
from irconv.errors import ParseError
from irconv.graph import Composite, Graph, Provenance
from irconv.op import OPS, Fusion, NoGradient, OpDef
from irconv.ops.conv import conv
from irconv.ops.pool import max_pool
from irconv.ops.reduce import reduce_mean
from irconv.passes.differentiate import differentiate
from irconv.places import Location
from irconv.text import large_constants, parse, print_graph
from irconv.types import DTYPES, DType, Layout, tensor_type
from irconv.verify import verify
from tests.example_graphs import graphs, sample_graph, small_network
from tests.samples.table import all_samples

SMALL = """\
irconv 1
graph small(
  %x: f32[2,3],
  param %conv1.weight: f32[3],
  buffer %bn.running_mean: f32[3],
  state %optimizer.lr: f32[],
  frozen %blur: f32[2,2],
) {
  %conv1 = multiply(%x, %conv1.weight) : f32[2,3]  # model.py:12, in conv1
  %bn.subtract = subtract(%conv1, %bn.running_mean) : f32[2,3]  # model.py:13, in bn, part of batch_norm bn
  %constant = constant() value=0.5 : f32[]  # model.py:13, in bn, part of batch_norm bn
  %bn.multiply = multiply(%bn.subtract, %constant) : f32[2,3]  # model.py:13, in bn, part of batch_norm bn
  %constant_1 = constant() value=1.0 : f32[]  # model.py:13, in bn, part of batch_norm bn
  %bn = add(%bn.multiply, %constant_1) : f32[2,3]  # model.py:13, in bn, part of batch_norm bn
  %d_conv1 = clip(%bn) minimum=0.0 maximum=inf : f32[2,3]  # backward of %conv1, model.py:12, in conv1
  %constant_2 = constant() sha256="DIGEST" : f32[8,3]
  %large = add(%constant_2, %bn.running_mean) : f32[8,3]
  update %bn.running_mean = %bn.running_mean
  return %bn, loss = %d_conv1, aux.0 = %large
}
"""


def roundtrip(graph: Graph) -> Graph:
    """Print, parse, print: the texts must be equal and everything that the text says must have come back."""
    text = print_graph(graph)
    back = parse(text, large_constants(graph))
    assert print_graph(back) == text
    assert back.name == graph.name
    assert [(n.name, n.op, n.type, n.provenance) for n in back if not n.is_leaf] == [
        (n.name, n.op, n.type, n.provenance) for n in graph if not n.is_leaf
    ]
    for node in graph:
        twin = back[node.name]
        assert twin.provenance == node.provenance
        assert [back[i].name for i in twin.operands] == [graph[i].name for i in node.operands]
        assert twin.attributes == node.attributes
    verify(back)
    return back


# --- form ------------------------------------------------------------------------------------------------------------------


def test_the_form() -> None:
    graph = small_network()
    (digest,) = large_constants(graph)
    assert str(graph) == SMALL.replace("DIGEST", digest)
    back = roundtrip(graph)
    assert back.outputs.keys() == graph.outputs.keys()
    assert back[back.outputs["loss"]].name == "d_conv1"
    assert back["bn.running_mean"].attributes.role == "buffer"


def test_short_signatures_stay_on_one_line() -> None:
    graph = parse("irconv 1\ngraph f(\n  %x: f32[],\n) {\n return %x\n}")
    assert print_graph(graph) == "irconv 1\ngraph f(%x: f32[]) {\n  return %x\n}\n"
    assert print_graph(Graph("empty")) == "irconv 1\ngraph empty() {\n  return\n}\n"


def test_leaves_keep_where_they_come_from() -> None:
    graph = parse("irconv 1\ngraph f(%x: f32[], param %w: f32[]) {\n return %x\n}")
    graph.set_provenance(graph["w"].id, Provenance(Location("m.py", 3), "conv1"))
    assert "  param %w: f32[],  # m.py:3, in conv1\n" in print_graph(graph)
    roundtrip(graph)


def test_locations_can_be_left_out() -> None:
    text = print_graph(small_network(), locations=False)
    assert "model.py" not in text
    assert "# backward of %conv1, in conv1\n" in text


def test_odd_names_are_quoted() -> None:
    graph = Graph('a "graph"\n')
    x = graph.add_input("%x y", tensor_type("f32", (2,)))
    odd = Provenance(Location("C:\\a b.py", 3), "in", Composite("part", ""), 'o"')
    relu = graph.add(OPS["relu"], OPS["relu"].attributes(), [x.id], name="é\u2028", provenance=odd)
    graph.set_output("a = b", relu.id)
    graph.set_output("none", relu.id)
    text = print_graph(graph)
    assert r'# backward of %"o\"", "C:\\a b.py":3, in "in", part of "part" ""' in text
    assert text.isascii()
    roundtrip(graph)


@pytest.mark.parametrize("file", ["in", "part", "backward", "lenet.py", "<stdin>", "a,b", "#", "a/b-c.py", ""])
def test_any_file_name(file: str) -> None:
    graph = parse("irconv 1\ngraph f(%x: f32[]) {\n return %x\n}")
    graph.add(OPS["relu"], OPS["relu"].attributes(), [0], provenance=Provenance(Location(file, 1)))
    roundtrip(graph)


def test_a_type_with_a_layout() -> None:
    type_ = tensor_type("f16", (8, 32, 4, 4), Layout(((0, 0), (2, 0), (3, 0), (1, 0), (1, 16))))
    graph = Graph("f")
    graph.set_output("", graph.add_input("x", type_).id)
    assert "%x: f16[8,32,4,4]{0,2,3,1,1%16}" in print_graph(graph)
    assert roundtrip(graph)["x"].type == type_


def test_equal_graphs_print_equal_in_every_process() -> None:
    code = "import irconv.ops\nfrom tests.example_graphs import small_network\nprint(small_network(), end='')"
    root = Path(__file__).parents[1]
    for seed in ("1", "2"):
        environment = {**os.environ, "PYTHONHASHSEED": seed}
        run = subprocess.run([sys.executable, "-c", code], env=environment, cwd=root, stdout=subprocess.PIPE, check=True)
        assert run.stdout.decode() == str(small_network())


# --- round trips -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("sample", all_samples(), ids=lambda sample: sample.id)
def test_every_sample_round_trips(sample) -> None:
    roundtrip(sample_graph(sample))


@settings(max_examples=80, deadline=None)
@given(graphs())
def test_random_graphs_round_trip(graph: Graph) -> None:
    back = roundtrip(graph)
    assert [(path, back[i].name) for path, i in back.outputs.items()] == [(p, graph[i].name) for p, i in graph.outputs.items()]
    assert [(back[s].name, back[v].name) for s, v in back.updates.items()] == [
        (graph[s].name, graph[v].name) for s, v in graph.updates.items()
    ]


def test_a_network_with_its_gradients_round_trips() -> None:
    graph = Graph("net")
    builder = Builder(graph)
    x = builder.input("x", tensor_type("f32", (2, 3, 9, 9)))
    w = builder.wrap(graph.add_state("conv.weight", tensor_type("f32", (4, 3, 3, 3)), "param"))
    with builder.at(Provenance(Location("net.py", 4), "conv"), "conv"):
        y = conv(x, w, stride=2, padding="same")
    with builder.at(Provenance(Location("net.py", 5), "pool"), "pool"):
        y = max_pool(ops.relu(y), 2)
    loss = reduce_mean(ops.square(y))
    gradients = differentiate(graph, loss.id, [w.id, x.id])
    for leaf, gradient in gradients.items():
        graph.set_output(f"gradient of {graph[leaf].name}", gradient)
    verify(graph)
    text = str(roundtrip(graph))
    assert "%d_conv = " in text
    assert "# backward of %conv, net.py:4, in conv\n" in text


def constant_graph(value: np.ndarray) -> Graph:
    graph = Graph("f")
    op = OPS["constant"]
    graph.set_output("", graph.add(op, op.attributes(value), name="c").id)
    return graph


@settings(max_examples=200, deadline=None)
@given(st.sampled_from(list(DTYPES.values())), st.lists(st.integers(0, 2**64 - 1), max_size=20), st.booleans())
def test_constants_keep_every_bit(dtype: DType, words: list[int], column: bool) -> None:
    bits = np.array([w % (2 if dtype.kind == "bool" else 256**dtype.bytes) for w in words], f"u{dtype.bytes}")
    value = bits.view(dtype.numpy).reshape((-1, 1) if column else (-1,))
    back = roundtrip(constant_graph(value))["c"].attributes.value
    assert (back.dtype, back.shape) == (value.dtype, value.shape)
    assert back.tobytes() == value.tobytes()


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (np.array(0.1, np.float32), "value=0.1 : f32[]"),
        (np.array([1e-45, -0.0, 3.4028235e38], np.float32), "value=[1e-45,-0.0,3.4028235e+38] : f32[3]"),
        (np.array([[np.inf, -np.inf], [np.nan, 1]], np.float16), "value=[[inf,-inf],[nan,1.0]] : f16[2,2]"),
        (np.array([0.1, 1 / 3]), "value=[0.1,0.3333333333333333] : f64[2]"),
        (np.array([2**64 - 1], np.uint64), "value=[18446744073709551615] : u64[1]"),
        (np.array([-128], np.int8), "value=[-128] : i8[1]"),
        (np.array([True, False]), "value=[true,false] : bool[2]"),
        (np.zeros((3, 0, 2)), "value=[] : f64[3,0,2]"),
        (np.zeros((1,) * 40, np.int32), f"value={'[' * 40}0{']' * 40} : i32[{','.join('1' * 40)}]"),
    ],
)
def test_small_constants_stand_in_the_text(value: np.ndarray, text: str) -> None:
    graph = constant_graph(value)
    assert text in print_graph(graph)
    roundtrip(graph)


def test_unusual_nans_and_large_arrays_go_by_digest() -> None:
    payload = np.array([0x7FC00001], np.uint32).view(np.float32)
    negative = np.array([0xFFC00000], np.uint32).view(np.float32)
    for value in (payload, negative, np.zeros(17)):
        graph = constant_graph(value)
        assert "sha256=" in print_graph(graph)
        roundtrip(graph)


def test_a_constant_of_the_graph_is_its_own() -> None:
    graph = constant_graph(np.zeros(17))
    mine = np.zeros(17)
    back = parse(str(graph), dict.fromkeys(large_constants(graph), mine))
    mine[:] = 1
    assert not back["c"].attributes.value.any()


# --- attributes ------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class EveryKind:
    i: int
    f: float
    s: str
    t: DType
    pairs: tuple[tuple[int, int], ...]
    floats: tuple[float, ...] | None
    stream: tuple[int, int]
    layout: Layout | None = None
    b: bool = False
    zero: float = 0.0
    word: str | None = None


@pytest.fixture
def every_kind(monkeypatch: pytest.MonkeyPatch) -> OpDef:
    op = OpDef(
        "every_kind",
        ("x",),
        infer=lambda attributes, x: x,
        reference=lambda attributes, x: x,
        gradient=NoGradient("a test"),
        fusion=Fusion.ELEMENTWISE,
        attributes=EveryKind,
    )
    monkeypatch.setitem(OPS, op.name, op)
    return op


MINIMAL = EveryKind(1, 2.0, "same", DTYPES["f16"], (), None, (0, 1))
FULL = EveryKind(
    i=-(2**63),
    f=float("-inf"),
    s='a "b"\n',
    t=DTYPES["bool"],
    pairs=((1, -2), (3, 4)),
    floats=(0.1, 1e300),
    stream=(2**64, 2),
    layout=Layout(((1, 0), (0, 8))),
    b=True,
    zero=-0.0,
    word="none",
)


@pytest.mark.parametrize(
    ("attributes", "text"),
    [
        (MINIMAL, "every_kind(%x) i=1 f=2.0 s=same t=f16 pairs=[] floats=none stream=[0,1] : f32[]"),
        (
            FULL,
            (
                'i=-9223372036854775808 f=-inf s="a \\"b\\"\\n" t=bool pairs=[[1,-2],[3,4]] floats=[0.1,1e+300] '
                'stream=[18446744073709551616,2] layout={1,0%8} b=true zero=-0.0 word="none" :'
            ),
        ),
    ],
)
def test_attributes_of_every_kind(every_kind: OpDef, attributes: EveryKind, text: str) -> None:
    graph = Graph("f")
    x = graph.add_input("x", tensor_type("f32", ()))
    graph.add(every_kind, attributes, [x.id], name="y")
    assert text in print_graph(graph)
    assert roundtrip(graph)["y"].attributes == attributes


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("i=1", "i=1.5", "attribute i: expected an integer, got 1.5"),
        ("i=1", 'i="1"', "attribute i: expected an integer, got '1'"),
        ("i=1", "i=99999999999999999999", "beyond 64 bits"),
        ("f=2.0", "f=two", "attribute f: expected a number, got two"),
        ("f=2.0", "f=1e999", "attribute f: 1e999 is too large"),
        ("f=2.0", "f=" + "1" * 401, "attribute f: expected a number"),
        ("s=same", "s=[a]", "attribute s: expected a word or a string"),
        ("t=f16", "t=f17", "attribute t: expected an element type"),
        ("pairs=[]", "pairs=[[1]]", "attribute pairs: expected a list of 2, got ['1']"),
        ("pairs=[]", "pairs=3", "attribute pairs: expected a list, each item a list of 2"),
        ("floats=none", "floats=[none]", "attribute floats: expected a number"),
        ("stream=[0,1]", "stream=[0,1,2]", "attribute stream: expected a list of 2"),
        ("stream=[0,1]", "stream=[0,1] b=1", "attribute b: expected true or false, got 1"),
        ("stream=[0,1]", "stream=[0,1] layout=[0]", "attribute layout: expected a layout"),
        ("stream=[0,1]", "stream=[0,1] layout={0%0}", "a block is not within 1 to 65536"),
        ("stream=[0,1]", "", "attribute stream is missing"),
        ("stream=[0,1]", "strem=[0,1]", "there is no attribute strem"),
        ("i=1", "i=1 i=1", "attribute i is given twice"),
    ],
)
def test_attributes_that_do_not_fit(every_kind: OpDef, old: str, new: str, message: str) -> None:
    fields = "i=1 f=2.0 s=same t=f16 pairs=[] floats=none stream=[0,1]"
    text = f"irconv 1\ngraph f(%x: f32[]) {{\n  %y = every_kind(%x) {fields} : f32[]\n  return\n}}\n"
    parse(text)
    assert old in text
    with pytest.raises(ParseError) as caught:
        parse(text.replace(old, new))
    assert message in caught.value.message
    assert caught.value.location == Location("<text>", 3)


# --- what is not a graph ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("old", "new", "line", "message"),
    [
        ("irconv 1", "irconv 2", 1, "expected format version 1, got 2"),
        ("irconv 1", "hello", 1, "expected 'irconv', got hello"),
        ("graph f", "grph f", 2, "expected 'graph', got grph"),
        ("%x: f32", "%x: f33", 2, "f33 is not an element type"),
        ("f32[2,3], param", "f32[2,-3], param", 2, "type: shape [2, -3] has a negative dimension"),
        ("f32[2,3], param", "f32[2,3]{0}, param", 2, "type: layout {0} does not name each of the 2 axes once"),
        ("f32[2,3], param", "f32[99999999,99999999], param", 2, "more than 2^48 elements"),
        ("f32[2,3], param", "f32[2,3] param", 2, "expected ',' or ')', got param"),
        ("param %w", "parameter %w", 2, "%w: role 'parameter' is not one of"),
        ("param %w", "param %x", 2, "%x is defined twice"),
        ("%y = add", "%x = add", 3, "%x is defined twice"),
        ("%y = add", '%"" = add', 3, "a value needs a name"),
        ("%y = add", "y = add", 3, "expected a %name, 'update' or 'return', got y"),
        ("add(%x, %w)", "ad(%x, %w)", 3, "there is no op ad"),
        ("add(%x, %w)", "input()", 3, "input is no statement"),
        ("add(%x, %w)", "add(%x)", 3, "add: add takes operands (x, y), got 1"),
        ("add(%x, %w)", "add(%x %w)", 3, "expected ',', got %w"),
        ("add(%x, %w)", "add(%x, %z)", 3, "%z is not defined"),
        ("add(%x, %w)", "add(%x, %h)", 3, "add: operands have different element types: f32, f16"),
        ("add(%x, %w)", "add(%x, %w) axis=1", 3, "add: there is no attribute axis"),
        ("add(%x, %w)", "constant()", 3, "constant: a constant has value=... or sha256"),
        ("add(%x, %w)", "constant() value=[[1,2,3],[4,5]]", 3, "expected a list of 3, got ['4', '5']"),
        ("add(%x, %w)", "constant() value=[1,2]", 3, "expected a list of 3, got 1"),
        ("add(%x, %w)", "constant() value=[[1,2,3],[4,5,1e39]]", 3, "1e+39 does not fit f32"),
        ("add(%x, %w)", 'constant() sha256="00"', 3, "the array with digest '00' was not given"),
        (": f32[2,3]\n  %c", ": f32[3,2]\n  %c", 3, "%y is f32[2,3] by the rule of add, but the text says f32[3,2]"),
        ("%c = cast(%y) dtype=f16", "%c = cast(%y)", 4, "cast: attribute dtype is missing"),
        ("# m.py:3, in a", "# in a, m.py:3", 4, "expected 'part', got m.py"),
        ("# m.py:3, in a", "# m.py:3 in a", 4, "expected the end of the line, got in"),
        ("# m.py:3, in a", "# nothing", 4, "expected ':', got the end of the line"),
        ("# m.py:3, in a", '# "m.py', 4, "unexpected '\"'"),
        ("# m.py:3, in a", '# "\\q":3', 4, "is not a JSON string"),
        ("# m.py:3, in a", '# "\\ud800":3', 4, "is not a JSON string"),
        ("update %w = %w", "update %w = %y", 5, "update: update of %w: f32[3] cannot take a value of type f32[2,3]"),
        ("update %w = %w", "update %x = %y", 5, "update: %x is not a state"),
        ("update %w = %w", "update %w = %w\n  update %w = %w", 6, "%w is updated twice"),
        ("return a = %y, %c", "return a = %y, a = %c", 6, "output 'a' is returned twice"),
        ("return a = %y, %c", "return %nope", 6, "%nope is not defined"),
        ("return a = %y, %c", "", 7, "expected a %name, 'update' or 'return', got }"),
        ("}\n", "}\nmore", 8, "expected nothing after the graph, got more"),
        ("}\n", "", 7, "expected '}', got the end of the text"),
        ("%y = add", "\x00", 3, "unexpected '\\x00'"),
    ],
)
def test_what_is_wrong_and_where(old: str, new: str, line: int, message: str) -> None:
    text = (
        "irconv 1\n"
        "graph f(%x: f32[2,3], param %w: f32[3], %h: f16[]) {\n"
        "  %y = add(%x, %w) : f32[2,3]\n"
        "  %c = cast(%y) dtype=f16 : f16[2,3]  # m.py:3, in a\n"
        "  update %w = %w\n"
        "  return a = %y, %c\n"
        "}\n"
    )
    parse(text)
    assert text.count(old) == 1
    with pytest.raises(ParseError) as caught:
        parse(text.replace(old, new))
    assert message in caught.value.message
    assert caught.value.location == Location("<text>", line)


def test_messages_show_the_line_and_what_to_do() -> None:
    with pytest.raises(ParseError) as caught:
        parse("irconv 1\ngraph f(%x: f32[2]) {\n  %y = rleu(%x) : f32[2]\n  return %y\n}\n", source="f.ir")
    assert str(caught.value) == (
        "there is no op rleu\n  at f.ir:3\n  in %y = rleu(%x) : f32[2]\n          ^\n  hint: did you mean relu?"
    )


def test_a_constant_with_other_bits_than_its_digest_is_refused() -> None:
    graph = constant_graph(np.zeros(17))
    (digest,) = large_constants(graph)
    with pytest.raises(ParseError, match="has digest"):
        parse(str(graph), {digest: np.ones(17)})
