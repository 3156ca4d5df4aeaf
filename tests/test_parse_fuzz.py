"""The parser takes any text: a graph or a ParseError, never another exception, in bounded time and memory."""

from __future__ import annotations

import random
import re
import tracemalloc
from collections.abc import Callable, Iterator
from multiprocessing import get_context
from multiprocessing.pool import Pool

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from irconv import parser
from irconv.errors import ParseError
from irconv.graph import Graph
from irconv.text import large_constants, parse, print_graph
from irconv.verify import verify
from tests.counting import assert_near_linear
from tests.example_graphs import graphs, sample_graph, small_network
from tests.samples.table import all_samples

CONSTANTS = large_constants(small_network())
TEXTS = [str(small_network()), *sorted({str(sample_graph(sample)) for sample in all_samples()})]
PIECES = re.compile(r'"[^"\n]*"|%?[A-Za-z0-9_.+\-/]+|\s+|.')
ODD = ["-1", "0", "1", "2", "7", "4294967296", "99999999999999999999", "nan", "inf", "-inf", "1e999", "none", "true"]
ODD += ["[", "]", "[]", "[[]]", "{", "}", "{0}", "{0%0}", "(", ")", ",", ":", "=", "#", "%", "%x", "%x0", '"', '""', '"\\ud800"']
ODD += ["f32[]", "i64[0]", "bool[2]", "\n", "constant()", "\x00", "é"]


def check(text: str) -> None:
    """Parse: what comes back is a valid graph that round-trips, or a ParseError with a line of the text."""
    try:
        graph = parse(text, CONSTANTS)
    except ParseError as error:
        place = error.location
    else:
        place = None
        verify(graph)
        printed = print_graph(graph)
        assert print_graph(parse(printed, CONSTANTS)) == printed
    assert place is None or 1 <= place.line <= text.count("\n") + 1


def mutate(text: str, chance: random.Random) -> str:
    """Change a few pieces: drop, repeat, swap, or replace with something odd or from elsewhere in the text."""
    pieces = PIECES.findall(text)
    for _ in range(chance.randint(1, 4)):
        at, other = chance.randrange(len(pieces)), chance.randrange(len(pieces))
        kind = chance.randrange(6)
        if kind == 0:
            pieces[at] = ""
        elif kind == 1:
            pieces[at] *= 2
        elif kind == 2:
            pieces[at], pieces[other] = pieces[other], pieces[at]
        elif kind == 3:
            pieces[at] = pieces[other]
        else:
            pieces[at] = chance.choice(ODD)
    return "".join(pieces)


@settings(max_examples=300, deadline=None)
@given(st.text() | st.text(alphabet='irconv 1\ngraph f(%x:32[],)={}"#\\ '))
def test_any_text(text: str) -> None:
    check(text)
    check("irconv 1\ngraph f(%x: f32[2]) {\n" + text)
    check("irconv 1\ngraph f(%x: f32[2]) {\n  %y = relu(%x)" + text + ": f32[2]\n  return %y\n}\n")


@settings(max_examples=60, deadline=None)
@given(graphs(), st.randoms(use_true_random=False))
def test_mutated_random_graphs(graph: Graph, chance: random.Random) -> None:
    check(mutate(str(graph), chance))


@pytest.mark.parametrize("seed", range(8))
def test_mutated_samples(seed: int) -> None:
    chance = random.Random(seed)
    for _ in range(600):
        check(mutate(chance.choice(TEXTS), chance))


def test_text_cut_anywhere() -> None:
    for text in (TEXTS[0], TEXTS[1], TEXTS[-1]):
        for end in range(len(text)):
            check(text[:end])


def test_every_character_replaced() -> None:
    text = TEXTS[0]
    for at in range(0, len(text), 3):
        for character in '\n"%[é':
            check(text[:at] + character + text[at + 1 :])


HEAD = "irconv 1\ngraph f(%x: f32[2]) {\n"
SIZE = 300_000
BOMBS = {
    "deep lists": HEAD + "  %y = constant() value=" + "[" * SIZE,
    "wide list": HEAD + "  %y = constant() value=[" + "1," * SIZE,
    "long string": HEAD + '  %"' + "a" * SIZE,
    "escapes": HEAD + '  %"' + "\\n" * SIZE + '" = relu(%x) : f32[2]',
    "long number": HEAD + "  %y = clip(%x) minimum=" + "9" * SIZE,
    "long name": HEAD + "  %" + "a" * SIZE + " = relu(%x)",
    "long op": HEAD + "  %y = " + "a" * SIZE,
    "operands": HEAD + "  %y = concat(" + "%x," * SIZE,
    "dimensions": HEAD + "  %y = relu(%x) : f32[" + "1," * SIZE,
    "big dimensions": "irconv 1\ngraph f(%x: f32[" + "9" * SIZE + "]) {",
    "layout": "irconv 1\ngraph f(%x: f32[2]{" + "0," * SIZE,
    "blank lines": "irconv 1" + "\n" * SIZE,
    "spaces": " " * SIZE,
    "open parentheses": "irconv 1 graph f(" + "(" * SIZE,
    "inputs": "irconv 1\ngraph f(" + "".join(f"%{i}: f32[], " for i in range(SIZE // 10)),
    "outputs": HEAD + "  return " + "".join(f"{i} = %x, " for i in range(SIZE // 10)),
    "comment": HEAD + "  %y = relu(%x) : f32[2]  # " + "in " * SIZE,
}


@pytest.fixture(scope="module")
def elsewhere() -> Iterator[Pool]:
    """A process to parse in that can be ended while a regular expression does not come back."""
    with get_context("spawn").Pool(1) as made:
        yield made


def refused(text: str) -> tuple[str, int]:
    """The message of the ParseError for a text, and the most memory that parsing took."""
    tracemalloc.start()
    try:
        with pytest.raises(ParseError) as caught:
            parse(text)
        return str(caught.value), tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("name", BOMBS)
def test_long_texts_come_to_an_end_and_take_little_memory(name: str, elsewhere: Pool) -> None:
    message, peak = elsewhere.apply_async(refused, (BOMBS[name],)).get(timeout=120)
    assert peak < 200e6
    assert len(message) < 1000


def test_limits(monkeypatch: pytest.MonkeyPatch) -> None:
    lines = "".join(f"  %y{i} = relu(%x) : f32[2]\n" for i in range(20))
    text = HEAD + lines + "  return\n}\n"
    parse(text)
    cases = [("MAX_TEXT", 100, "the text has")]
    cases += [("MAX_NODES", 10, "more than 10 values"), ("MAX_OPERANDS", 10, "more than 10 operands")]
    for limit, value, message in cases:
        with monkeypatch.context() as patch:
            patch.setattr(parser, limit, value)
            with pytest.raises(ParseError, match=message):
                parse(text)


def test_parsing_takes_near_linear_time() -> None:
    def parsing(count: int) -> Callable[[], object]:
        lines = "".join(f"  %y{i} = relu(%x) : f32[2]  # model.py:{i}, in layer{i}\n" for i in range(count))
        return lambda: parse(HEAD + lines + "  return\n}\n")

    assert len(parse(HEAD + "  return\n}\n")) == 1
    assert_near_linear(parsing, 100, 800)


def test_constants_that_are_not_arrays() -> None:
    text = HEAD + '  %c = constant() sha256="00" : f32[2]\n  return\n}\n'
    for wrong in (np.array(["a"]), np.array([None]), 3.5, "text"):
        with pytest.raises(ParseError):
            parse(text, {"00": wrong})  # type: ignore[dict-item]
