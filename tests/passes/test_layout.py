"""Channels last: which values are stored so, where conversions stand, and that numbers and signature stay."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings

from irconv.errors import GraphError, ShapeError
from irconv.ops.concat import concat
from irconv.ops.conv import conv
from irconv.ops.elementwise import add, relu
from irconv.ops.pool import max_pool
from irconv.ops.reduce import reduce_mean
from irconv.ops.shape import reshape, slice_
from irconv.parser import parse
from irconv.passes.layout import ChannelsLast
from irconv.strides import value_strides
from irconv.text import print_graph
from irconv.types import Layout, TensorType, channels_last
from tests.passes.building import build, golden, run, text
from tests.passes.programs import graphs

WEIGHT = np.linspace(-1, 1, 8 * 6 * 9, dtype=np.float32).reshape(8, 6, 3, 3)


def test_channels_last_from_one_convolution_to_the_next():
    def network(x, w):
        return reduce_mean(max_pool(relu(conv(x, w, padding=1)), 2), (2, 3))

    after, _ = run(ChannelsLast(), build(network, {"w": WEIGHT}, x="f32[2,6,8,8]"))
    assert text(after) == golden("""
        %x_stored = relayout(%x) layout={0,2,3,1} : f32[2,6,8,8]{0,2,3,1}
        %conv = conv(%x_stored, %w) stride=[1,1] padding=[[1,1],[1,1]] dilation=[1,1] groups=1 : f32[2,8,8,8]{0,2,3,1}
        %relu = relu(%conv) : f32[2,8,8,8]{0,2,3,1}
        %max_pool = max_pool(%relu) kernel=[2,2] stride=[2,2] padding=[[0,0],[0,0]] dilation=[1,1] ceil_mode=false \
: f32[2,8,4,4]{0,2,3,1}
        %mean = mean(%max_pool) axes=[2,3] keepdims=false : f32[2,8]
        return y = %mean
    """)


def test_an_image_of_few_channels_is_read_as_it_is_and_outputs_are_row_major():
    weight = WEIGHT[:, :3].copy()
    after, _ = run(ChannelsLast(), build(lambda x, w: conv(x, w), {"w": weight}, x="f32[1,3,5,5]"))
    assert text(after) == golden("""
        %conv = conv(%x, %w) stride=[1,1] padding=[[0,0],[0,0]] dilation=[1,1] groups=1 : f32[1,8,3,3]{0,2,3,1}
        %conv_stored = relayout(%conv) layout={0,1,2,3} : f32[1,8,3,3]
        return y = %conv_stored
    """)


def test_a_value_is_converted_once_for_all_its_readers():
    def network(x, v, w):
        return add(conv(x, w, padding=1), conv(x, v, padding=1))

    after, _ = run(ChannelsLast(), build(network, {"v": WEIGHT, "w": WEIGHT}, x="f32[1,6,4,4]"))
    conversions = [node for node in after if node.op.name == "relayout"]
    assert [after[node.operands[0]].name for node in conversions] == ["x", "add"]


def test_values_that_are_the_same_in_both_orders_stay_row_major():
    def network(x, w):
        pooled = reduce_mean(relu(conv(x, w)), (2, 3), keepdims=True)  # one pixel
        return reshape(relu(pooled), (1, 8))

    after, _ = run(ChannelsLast(), build(network, {"w": WEIGHT}, x="f32[1,6,5,5]"))
    laid_out = {node.op.name for node in after if node.type.layout is not None}
    assert laid_out == {"relayout", "conv", "relu"}
    assert all(node.type.layout is None for node in after if node.type.shape[2:] == (1, 1))


def test_slices_along_channels_stay_views_and_concatenations_follow():
    def network(x, w):
        y = conv(x, w, padding=1)
        first, second = slice_(y, (0, 0, 0, 0), (1, 4, 4, 4)), slice_(y, (0, 4, 0, 0), (1, 8, 4, 4))
        return reduce_mean(concat([relu(second), first], 1), (2, 3))

    after, _ = run(ChannelsLast(), build(network, {"w": WEIGHT}, x="f32[1,6,4,4]"))
    strides = value_strides(after)
    slices = [node for node in after if node.op.name == "slice"]
    assert [strides[node.id] for node in slices] == [((128, 1, 32, 8), True)] * 2
    (joined,) = (node for node in after if node.op.name == "concat")
    assert joined.type.layout == channels_last(4)


def test_a_graph_without_convolutions_is_left_alone():
    graph = build(lambda x: relu(max_pool(x, 2)), x="f32[1,6,4,4]")
    assert not ChannelsLast().run(graph)


@settings(max_examples=60, deadline=None)
@given(graphs())
def test_numbers_stay_and_results_are_row_major(graph):
    after, _ = run(ChannelsLast(), graph)
    assert all(after[i].type.layout is None for i in (*after.outputs.values(), *after.updates.values()))


def test_the_text_form_keeps_layouts():
    def network(x, w):
        return relu(conv(x, w))

    after, _ = run(ChannelsLast(), build(network, {"w": WEIGHT}, x="f32[1,6,5,5]"))
    printed = print_graph(after)
    again = parse(printed)
    assert print_graph(again) == printed
    assert again["conv"].type.layout == channels_last(4)


def test_only_computed_values_of_fitting_rank_take_a_layout():
    graph = build(lambda x: relu(x), x="f32[2,3]")
    with pytest.raises(GraphError, match="leaf"):
        graph.set_layout(graph.inputs[0], Layout(((1, 0), (0, 0))))
    with pytest.raises(ShapeError):
        graph.set_layout(graph["relu"].id, channels_last(4))
    changed = graph.set_layout(graph["relu"].id, Layout(((1, 0), (0, 0))))
    assert value_strides(graph)[changed.id] == ((1, 2), False)
    assert changed.type.logical == TensorType(changed.type.dtype, (2, 3))
