"""Choices, scans and training steps that depend on values, and operators that run on values known at import."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

pytest.importorskip("onnx", reason="needs the onnx package: pip install 'irconv[onnx]'")

import onnx
from onnx import TensorProto, helper

import irconv
from irconv import nn, optim
from irconv.errors import ModelError
from tests.onnx.building import RNG, f32, info, load, model, stored

I64, BOOL = TensorProto.INT64, TensorProto.BOOL

# --- choices ---------------------------------------------------------------------------------------------------------------------


def branch(operator: str, **attributes: Any) -> onnx.GraphProto:
    return helper.make_graph([helper.make_node(operator, ["x"], ["r"], name=operator, **attributes)], operator, [], [info("r", 2)])


def choice(**attributes: Any) -> onnx.NodeProto:
    node = helper.make_node("If", ["condition"], ["y"], then_branch=branch("Neg"), else_branch=branch("Frobnicate"))
    node.attribute.extend(helper.make_attribute(name, value) for name, value in attributes.items())
    return node


def test_a_branch_that_is_not_taken_may_hold_anything() -> None:
    compiled = irconv.compile(load(model([choice()], [info("x", 2), info("condition", dtype=BOOL)], ["y"])))
    x = f32(2)
    np.testing.assert_array_equal(compiled(x, np.array(True)), -x)
    with pytest.raises(ModelError, match=r"not supported:\n  Frobnicate \(version 17\) x 1: Frobnicate"):
        compiled(x, np.array(False))
    np.testing.assert_array_equal(compiled(x, np.array(True)), -x)


def test_a_branch_that_is_taken_may_not_have_unknown_attributes() -> None:
    node = helper.make_node("If", ["c"], ["y"], then_branch=branch("Neg"), else_branch=branch("Relu", softness=1.0))
    compiled = irconv.compile(load(model([node], [info("x", 2), info("c", dtype=BOOL)], ["y"])))
    np.testing.assert_array_equal(compiled(np.float32([1, -1]), np.array(True)), [-1, 1])
    with pytest.raises(ModelError, match="softness"):
        compiled(np.float32([1, -1]), np.array(False))


def test_what_is_unsupported_beside_a_choice_is_listed_with_what_its_branches_hold() -> None:
    nodes = [choice(), helper.make_node("Wobble", ["y"], ["z"], name="wobble")]
    with pytest.raises(ModelError, match=r"2 operators(.|\n)*Frobnicate(.|\n)*Wobble"):
        load(model(nodes, [info("x", 2), info("condition", dtype=BOOL)], ["z"]))


# --- training steps ----------------------------------------------------------------------------------------------------------------


def test_a_training_step_specialises_for_the_inputs_that_determine_shapes() -> None:
    nodes = [helper.make_node("Reshape", ["x", "shape"], ["flat"]), helper.make_node("Gemm", ["flat", "w"], ["y"])]
    proto = model(nodes, [info("x", None, None), info("shape", 2, dtype=I64)], ["y"], stored(w=f32(6, 3)))
    net, twin = load(proto), load(proto)
    plain = nn.Sequential(twin.until("y"))
    loss = nn.CrossEntropyLoss()
    step = irconv.compile_step(net, loss, optim.SGD(net.parameters(), lr=0.1))
    weight = np.array(dict(plain.named_parameters())["0.w"].numpy(), np.float64)
    for shape in ([4, 6], [2, 6], [4, 6]):
        x, target = f32(shape[0] * 3, 2), np.arange(shape[0]) % 3
        found = float(step(x, np.array(shape), target))
        flat = x.reshape(shape).astype(np.float64)
        scores = flat @ weight
        odds = np.exp(scores - scores.max(1, keepdims=True))
        odds /= odds.sum(1, keepdims=True)
        assert found == pytest.approx(-np.log(odds[np.arange(len(x) // 3), target]).mean(), rel=1e-5)
        weight -= 0.1 * flat.T @ (odds - np.eye(3)[target]) / shape[0]
        np.testing.assert_allclose(dict(net.named_parameters())["w"].numpy(), weight, rtol=1e-4, atol=1e-6)


def test_a_training_step_refuses_a_spec_for_an_input_that_determines_shapes() -> None:
    node = helper.make_node("Reshape", ["w", "shape"], ["y"])
    net = load(model([node], [info("shape", 1, dtype=I64)], ["y"], stored(w=f32(2, 3))))
    step = irconv.compile_step(net, nn.MSELoss(), optim.SGD([irconv.nn.Parameter(f32(2))], lr=0.1))
    with pytest.raises(ModelError, match="give its value"):
        step.compiled.specialise(irconv.TensorSpec((1,), "i64"), irconv.TensorSpec((6,)))


# --- scans -------------------------------------------------------------------------------------------------------------------------


def scan8(inputs: list[str], directions: tuple[int, ...] = (0,)) -> onnx.NodeProto:
    nodes = [helper.make_node("Add", ["state", "entry"], ["next"]), helper.make_node("Mul", ["next", "next"], ["square"])]
    body = helper.make_graph(nodes, "body", [info("state", 2), info("entry", 2)], [info("next", 2), info("square", 2)])
    return helper.make_node("Scan", inputs, ["last", "squares"], body=body, num_scan_inputs=1, directions=directions)


@pytest.mark.parametrize("backward", [0, 1])
@pytest.mark.parametrize("lengths", [None, [4, 2, 1]])
def test_scans_of_sequences_of_different_lengths(lengths: list[int] | None, backward: int) -> None:
    inputs = [info("lengths", 3, dtype=I64)] if lengths else []
    ports = [*inputs, info("s", 3, 2), info("x", 3, 4, 2)]
    node = scan8(["lengths" if lengths else "", "s", "x"], (backward,))
    net = irconv.compile(load(model([node], ports, ["last", "squares"], opset=8)))
    s, x = f32(3, 2), f32(3, 4, 2)
    last, squares = net(*([np.array(lengths)] if lengths else []), s, x)
    for b, n in enumerate(lengths or [4, 4, 4]):
        entries = x[b, :n][::-1] if backward else x[b, :n]
        sums = s[b] + np.cumsum(entries, 0)
        np.testing.assert_allclose(last[b], sums[-1], rtol=1e-5)
        np.testing.assert_allclose(squares[b, :n], sums**2, rtol=1e-5, atol=1e-6)
        np.testing.assert_array_equal(squares[b, n:], 0)


@pytest.mark.parametrize("lengths", [[5, 1, 1], [0, 1, 1], [1, 1], [-1, 2, 2]])
def test_lengths_that_do_not_fit(lengths: list[int]) -> None:
    ports = [info("lengths", None, dtype=I64), info("s", 3, 2), info("x", 3, 4, 2)]
    net = load(model([scan8(["lengths", "s", "x"])], ports, ["last"], opset=8))
    with pytest.raises(ModelError, match="lengths"):
        net(np.array(lengths), f32(3, 2), f32(3, 4, 2))


# --- operators ---------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("rows", [1, 2, 3, 6])
def test_determinants_and_their_gradients(rows: int) -> None:
    x = RNG.normal(size=(2, 3, rows, rows))
    x[0, 0, 0, 0] = 0  # rows have to be exchanged
    if rows > 1:
        x[1, 1, 1] = 2 * x[1, 1, 0]  # singular
    net = load(model([helper.make_node("Det", ["x"], ["y"])], [info("x", *x.shape, dtype=TensorProto.DOUBLE)], ["y"]))
    np.testing.assert_allclose(irconv.compile(net)(x), np.linalg.det(x), rtol=1e-10, atol=1e-12)
    given = irconv.tensor(x[0], "f64", requires_grad=True)
    one = load(model([helper.make_node("Det", ["x"], ["y"])], [info("x", *x.shape[1:], dtype=TensorProto.DOUBLE)], ["y"]))
    one(given).sum().backward()
    assert given.grad is not None
    if rows == 1:
        np.testing.assert_array_equal(given.grad.numpy(), 1)
    else:
        wanted = np.linalg.det(x[0])[:, None, None] * np.linalg.inv(x[0]).swapaxes(1, 2)
        np.testing.assert_allclose(given.grad.numpy(), wanted, rtol=1e-8, atol=1e-10)


@pytest.mark.parametrize("shape", [(2, 3), (3,), (65, 65), (0, 0)])
def test_determinants_of_what_is_not_square(shape: tuple[int, ...]) -> None:
    net = load(model([helper.make_node("Det", ["x"], ["y"])], [info("x", *shape)], ["y"]))
    with pytest.raises(ModelError, match="square"):
        net(f32(*shape))


def kept_one_by_one(
    boxes: np.ndarray, scores: np.ndarray, most: int, limit: float, least: float, centred: bool
) -> list[tuple[int, int, int]]:
    """Non-maximum suppression box by box."""
    found = []
    for b in range(scores.shape[0]):
        for c in range(scores.shape[1]):
            chosen: list[int] = []
            for i in sorted(range(scores.shape[2]), key=lambda i: (-scores[b, c, i], i)):
                if len(chosen) == most or not scores[b, c, i] > least:
                    break
                if all(overlap(boxes[b, i], boxes[b, j], centred) <= limit for j in chosen):
                    chosen.append(i)
            found += [(b, c, i) for i in chosen]
    return found


def overlap(p: np.ndarray, q: np.ndarray, centred: bool) -> float:
    sides = []
    for axis in (0, 1):
        ends = []
        for box in (p, q):
            first, second = float(box[axis]), float(box[axis + 2])
            ends.append((first - second / 2, first + second / 2) if centred else (min(first, second), max(first, second)))
        sides.append((ends, min(e[1] for e in ends) - max(e[0] for e in ends)))
    if min(s for _, s in sides) <= 0:
        return 0.0
    shared = sides[0][1] * sides[1][1]
    areas = [(sides[0][0][k][1] - sides[0][0][k][0]) * (sides[1][0][k][1] - sides[1][0][k][0]) for k in (0, 1)]
    return shared / (sum(areas) - shared)


@pytest.mark.parametrize("centred", [0, 1])
@pytest.mark.parametrize(("most", "limit", "least"), [(100, 0.3, None), (3, 0.5, 0.4), (0, 0.5, None), (100, 0.0, 0.2)])
def test_boxes_that_overlap_better_ones_are_left_out(most: int, limit: float, least: float | None, centred: int) -> None:
    boxes = RNG.uniform(size=(2, 40, 4)).astype(np.float32)
    scores = RNG.uniform(size=(2, 3, 40)).astype(np.float32)
    scores[0, 0, 5:9] = 0.75  # equal ones
    known = {"most": np.array([most]), "limit": np.float32([limit])} | ({} if least is None else {"least": np.float32([least])})
    node = helper.make_node("NonMaxSuppression", ["boxes", "scores", *known], ["y"], center_point_box=centred)
    net = load(model([node], [info("boxes", 2, 40, 4), info("scores", 2, 3, 40)], ["y"], stored(**known)))
    found = irconv.compile(net)(boxes, scores)
    wanted = kept_one_by_one(boxes, scores, most, limit, -np.inf if least is None else np.float32(least), bool(centred))
    assert found.dtype == np.int64
    np.testing.assert_array_equal(found, np.array(wanted, np.int64).reshape(-1, 3))
    assert len(wanted) > 0 or most == 0


def test_bits_that_do_not_fill_the_type() -> None:
    net = load(model([helper.make_node("BitCast", ["x"], ["y"], to=I64)], [info("x", 4)], ["y"], opset=26))
    with pytest.raises(ModelError, match="do not fill"):
        net(f32(4))
