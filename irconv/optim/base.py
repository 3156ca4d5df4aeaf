"""What optimisers share: groups of parameters, settings that are read at run time, state named after the parameters."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from irconv.concrete import ConcreteValue, as_array, current_tracer, no_grad
from irconv.errors import AttributeValueError
from irconv.nn.module import Parameter, joined, misfit, mismatch_error, snapshot, variable_of
from irconv.state import Variable
from irconv.tensor import Tensor


class Group:
    """Parameters that are updated with the same settings.

    ``settings`` holds scalars (float64) that the update reads at run time, by name; ``step`` counts the updates made.
    """

    def __init__(self, parameters: Sequence[Parameter], settings: Mapping[str, float]):
        self.parameters = list(parameters)
        self.settings = {name: scalar_state(float(value)) for name, value in settings.items()}
        self.step = scalar_state(0)

    def __getitem__(self, name: str) -> float:
        return float(self.settings[name].item())

    def __setitem__(self, name: str, value: float) -> None:
        if name not in self.settings:
            raise AttributeValueError(f"{name!r} is not a setting of this optimiser; it has {', '.join(self.settings)}")
        _check_setting(name, float(value))
        variable_of(self.settings[name]).assign(float(value))


def scalar_state(value: float) -> Tensor:
    """A scalar with a variable of its own: float64, or int64 for an integer."""
    variable = Variable(np.asarray(value, np.int64 if isinstance(value, int) else np.float64))
    return Tensor(ConcreteValue(variable.array, variable=variable))


class Optimizer:
    """Base of optimisers.

    parameters: the parameters to train, or a sequence of groups: dicts with "params" and settings of their own, such as
    ``[{"params": head}, {"params": body, "lr": 1e-4}]``.

    ``step()`` updates them from their ``grad``; a compiled training step records the same update with :meth:`apply`.  Settings
    (``lr`` and the like) are read when the update runs: assigning ``optimizer.lr`` also changes what a compiled step does.
    A subclass writes :meth:`update`.
    """

    slots: tuple[str, ...] = ()
    """Names of the state tensors that each parameter has, made (as zeros) when it is first updated."""

    def __init__(self, parameters: Any, **settings: float):
        for name, value in settings.items():
            _check_setting(name, value)
        self._defaults = settings
        self._names: dict[int, str] = {}
        self._state: dict[tuple[int, str], Tensor] = {}
        self.groups: list[Group] = []
        items: list[Any] = [parameters] if isinstance(parameters, Parameter) else list(parameters)
        groups: list[Any] = items if items and isinstance(items[0], Mapping) else [{"params": items}]
        for group in groups:
            self.add_group(group)

    def add_group(self, group: Mapping[str, Any]) -> None:
        """Train further parameters: "params", and settings other than the optimiser's own."""
        given = group["params"]
        parameters = [given] if isinstance(given, Parameter) else list(given)
        own = {name: value for name, value in group.items() if name != "params"}
        unknown = [name for name in own if name not in self._defaults]
        if unknown:
            raise AttributeValueError(
                f"{', '.join(unknown)} cannot be set per group; {type(self).__name__} has {', '.join(self._defaults)}"
            )
        known = {id(p) for p in self.parameters}
        for parameter in parameters:
            if not isinstance(parameter, Parameter):
                raise AttributeValueError(
                    f"an optimiser trains parameters, got a {type(parameter).__name__}",
                    hint="give it model.parameters()",
                )
            if id(parameter) in known:
                raise AttributeValueError(f"a parameter {parameter.type} is given to the optimiser twice")
            known.add(id(parameter))
        if not parameters:
            raise AttributeValueError("an optimiser needs at least one parameter")
        for name, value in own.items():
            _check_setting(name, value)
        self.groups.append(Group(parameters, {**self._defaults, **own}))

    @property
    def parameters(self) -> list[Parameter]:
        """The parameters of all groups."""
        return [parameter for group in self.groups for parameter in group.parameters]

    @property
    def lr(self) -> float:
        """The learning rate of the first group; assigning it sets that of every group."""
        return self.groups[0]["lr"]

    @lr.setter
    def lr(self, value: float) -> None:
        for group in self.groups:
            group["lr"] = value

    def zero_grad(self) -> None:
        """Forget the gradients of all parameters."""
        for parameter in self.parameters:
            parameter.grad = None

    def step(self) -> None:
        """Update every parameter that has a gradient."""
        ready = [p for p in self.parameters if p.grad is not None and p.requires_grad]
        self.apply(ready, [p.grad for p in ready if p.grad is not None])

    def apply(self, parameters: Sequence[Parameter], gradients: Sequence[Tensor]) -> None:
        """Update ``parameters`` with ``gradients``: at once, or, inside a trace, as updates of its graph."""
        by_id = {id(p): g for p, g in zip(parameters, gradients, strict=True)}
        unknown = by_id.keys() - {id(p) for p in self.parameters}
        if unknown:
            raise AttributeValueError(f"{len(unknown)} of the parameters to update were not given to the optimiser")
        tracer = current_tracer()
        if tracer is not None:
            self._make_state(parameters)
            for name, state in self.named_state():
                tracer.declare(variable_of(state), name, "state")
        with no_grad():
            for group in self.groups:
                chosen = [(p, by_id[id(p)]) for p in group.parameters if id(p) in by_id]
                if chosen:
                    self.update(group, chosen)

    def update(self, group: Group, chosen: Sequence[tuple[Parameter, Tensor]]) -> None:
        """The rule: assign to the parameters of a group, given with their gradients, and to their state."""
        raise NotImplementedError

    def counted(self, group: Group) -> Tensor:
        """The number of this update, from 1, as a float64 scalar; the group's count moves on."""
        count = group.step + 1
        group.step.assign(count)
        return count.astype("f64")

    # --- state -------------------------------------------------------------------------------------------------------------

    def state_of(self, parameter: Parameter, slot: str) -> Tensor:
        """A parameter's state tensor; zeros at first."""
        key = (id(parameter), slot)
        if key not in self._state:
            variable = Variable(np.zeros(parameter.shape, parameter.dtype))
            self._state[key] = Tensor(ConcreteValue(variable.array, variable=variable))
        return self._state[key]

    def _make_state(self, parameters: Iterable[Parameter]) -> None:
        for parameter in parameters:
            for slot in self.slots:
                self.state_of(parameter, slot)

    def bind(self, names: Mapping[int, str]) -> None:
        """Say what the parameters are called: path by id of the parameter.  State is named after them."""
        self._names.update(names)

    def bind_module(self, module: Any) -> None:
        """Take the names of the parameters from the module that holds them."""
        self.bind({id(parameter): path for path, parameter in module.named_parameters()})

    def named_state(self) -> Iterator[tuple[str, Tensor]]:
        """(name, tensor) of all settings, counts and the state made so far: "lr", "step", "conv1.weight.momentum", ..."""
        for number, group in enumerate(self.groups):
            prefix = f"group{number}" if number else ""
            for name, setting in group.settings.items():
                yield joined(prefix, name), setting
            yield joined(prefix, "step"), group.step
        for number, parameter in enumerate(self.parameters):
            for slot in self.slots:
                if (id(parameter), slot) in self._state:
                    path = self._names.get(id(parameter), f"parameter{number}")
                    yield f"{path}.{slot}", self._state[id(parameter), slot]

    def state_dict(self) -> dict[str, np.ndarray]:
        """Copies of :meth:`named_state`."""
        return {name: snapshot(state) for name, state in self.named_state()}

    def checked_state(self, state: Mapping[str, Any]) -> dict[str, np.ndarray]:
        """The arrays of a saved state, found to fit; StateError listing what is missing, surplus or of another type.

        State of a parameter that was never updated may be missing.
        """
        possible = self._possible_state()
        required = {name for name, _ in self.named_state() if name in {"lr", "step"}}
        missing = [name for name in sorted(required) if name not in state]
        surplus = [name for name in state if name not in possible]
        arrays = {name: as_array(value) for name, value in state.items() if name in possible}
        wrong = [problem for name, array in arrays.items() if (problem := misfit(name, array, possible[name]))]
        if missing or surplus or wrong:
            raise mismatch_error(f"the state does not fit {type(self).__name__}", missing, surplus, wrong)
        return arrays

    def _possible_state(self) -> dict[str, Tensor]:
        """All the state there may be, by name."""
        self._make_state(self.parameters)
        return dict(self.named_state())

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go back to a state that was saved (see :meth:`checked_state`); what is not in it starts from zero."""
        arrays = self.checked_state(state)
        for name, tensor in self._possible_state().items():
            if name in arrays:
                variable_of(tensor).assign(arrays[name])
            elif name.rpartition(".")[2] in self.slots:
                variable_of(tensor).assign(np.zeros(tensor.shape, tensor.dtype))

    def __repr__(self) -> str:
        shown = ", ".join(f"{name}={self.groups[0][name]:g}" for name in self._defaults)
        return f"{type(self).__name__}({len(self.parameters)} parameters, {shown})"


def _check_setting(name: str, value: float) -> None:
    if isinstance(value, bool) or not isinstance(value, (int, float, np.floating, np.integer)) or not value >= 0:
        raise AttributeValueError(f"{name} must be a number of at least 0, got {value!r}")


def check_below_one(**values: float) -> None:
    """Raise unless each value lies in [0, 1)."""
    for name, value in values.items():
        if not 0 <= value < 1:
            raise AttributeValueError(f"{name} must be at least 0 and below 1, got {value!r}")
