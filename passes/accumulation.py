"""A training step that accumulates gradients as one graph, for libraries.

In Python such a step is two programs: one adds the gradients of a batch to their totals, and after every n batches the other
updates the parameters from these and starts the totals over.  Here both run at every step, and what the second computes is taken
where the batch was the n-th since the last update::

    seen       = count + 1
    due        = seen == n
    count'     = where(due, 0, seen)
    total'     = where(due, start, total + gradient / n)
    parameter' = where(due, updated, parameter)
"""

from __future__ import annotations

import numpy as np

from irconv.builder import Builder, GraphValue
from irconv.graph import Graph
from irconv.ops.elementwise import add, equal, where
from irconv.state import Variable
from irconv.types import type_of

COUNT = "batches.accumulated"
"""State that counts the batches since the last update."""


def joint_graph(step: Graph, apply: Graph, accumulate: int, waiting: int = 0) -> Graph:
    """The graph ``step`` that does what ``apply`` does at every ``accumulate``-th call; ``waiting`` have been made already."""
    joint = step.copy()
    builder = Builder(joint)
    states = {id(joint.state[joint[state].name]): state for state in joint.states}
    new = dict(joint.updates)
    copies: dict[int, int] = {}  # ids of apply -> ids of joint
    for node in (apply[i] for i in apply.order()):
        if node.id in apply.states:
            variable = apply.state[node.name]
            state = states.get(id(variable))
            if state is None:
                state = joint.add_state(node.name, node.type, node.attributes.role, variable).id
                states[id(variable)] = state
            copies[node.id] = new.get(state, state)  # the totals with this batch's gradients
        else:
            operands = [copies[i] for i in node.operands]
            copies[node.id] = joint.add(node.op, node.attributes, operands, name=node.name, provenance=node.provenance).id
    count = builder.wrap(joint.add_state(COUNT, type_of(np.array(0)), "state", Variable(np.array(waiting))))
    seen = builder.adopt(add(count, 1))
    due = builder.adopt(equal(seen, accumulate))

    def update(state: int, value: GraphValue) -> None:
        before = builder.value(new.get(state, state))
        joint.set_update(state, builder.adopt(where(due, value, before)).id)

    for state, value in apply.updates.items():
        update(states[id(apply.state[apply[state].name])], builder.value(copies[value]))
    joint.set_update(count.id, builder.adopt(where(due, builder.constant(np.array(0)), seen)).id)
    return joint
