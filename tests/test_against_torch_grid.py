"""nn.functional against PyTorch in float64, values and gradients, over a wide grid of parameters.

Each family is a product of parameter values, from which rows are drawn with a fixed seed; rows that PyTorch refuses are drawn
again.  What is refused here and not there fails.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

import irconv
import irconv.nn.functional as F

torch = pytest.importorskip("torch")
reference_functions = torch.nn.functional

TOLERANCE = 1e-9


@dataclass(frozen=True)
class Family:
    """One function with what varies.

    make:    from one choice of the values (by name, and a random generator) to (arrays, keyword arguments).
    choices: the values of each parameter.
    count:   how many rows to draw.
    """

    function: str
    make: Callable[..., tuple[list[Any], dict[str, Any]]]
    choices: Mapping[str, Sequence[Any]]
    count: int
    tolerance: float = TOLERANCE


@dataclass(frozen=True)
class Row:
    function: str
    arrays: tuple[Any, ...]
    kwargs: dict[str, Any]
    tolerance: float
    about: str


def floats(generator: np.random.Generator, *shape: int, low: float = -2.0, high: float = 2.0) -> np.ndarray:
    """Distinct numbers, so that no maximum is tied."""
    count = int(np.prod(shape))
    spread = low + (high - low) * (np.arange(count) + 0.37) / max(count, 1)
    return generator.permutation(spread).reshape(shape)


# --- families ----------------------------------------------------------------------------------------------------------------


def convolution(rank: int, transposed: bool) -> Family:
    def make(generator, batch, groups, each, out, size, kernel, stride, padding, dilation, bias, extra):
        sizes = tuple(int(n) for n in generator.integers(*size, rank))
        kernels = tuple(int(k) for k in generator.integers(*kernel, rank))
        inner, outer = groups * each, groups * out
        x = floats(generator, *([batch] if batch else []), inner, *sizes)
        channels = (inner, out) if transposed else (outer, each)
        arrays = [x, floats(generator, *channels, *kernels), floats(generator, outer) if bias else None]
        kwargs = {"stride": stride, "padding": padding, "dilation": dilation, "groups": groups}
        return arrays, kwargs | ({"output_padding": extra} if transposed else {})

    return Family(
        f"conv_transpose{rank}d" if transposed else f"conv{rank}d",
        make,
        {
            "batch": (2, 1, None),
            "groups": (1, 2, 3),
            "each": (1, 2),
            "out": (1, 2),
            "size": ((3, 9), (1, 4)) if rank < 3 else ((2, 5),),
            "kernel": ((1, 4), (2, 6)) if rank < 3 else ((1, 4),),
            "stride": (1, 2, 3),
            "padding": (0, 1, 2) if transposed else (0, 1, 2, "same", "valid"),
            "dilation": (1, 2, 3),
            "bias": (True, False),
            "extra": (0, 1, 2),
        },
        30,
    )


def pool(kind: str, rank: int) -> Family:
    def make(generator, batch, channels, size, kernel, stride, padding, dilation, ceil_mode, include, divisor):
        sizes = tuple(int(n) for n in generator.integers(*size, rank))
        kernels = tuple(int(k) for k in generator.integers(*kernel, rank))
        kwargs: dict[str, Any] = {"kernel_size": kernels, "stride": stride, "padding": padding, "ceil_mode": ceil_mode}
        if kind == "max":
            kwargs |= {"dilation": dilation, "return_indices": include}
        else:
            kwargs["count_include_pad"] = include
            if rank > 1:
                kwargs["divisor_override"] = divisor
        return [floats(generator, *([batch] if batch else []), channels, *sizes)], kwargs

    return Family(
        f"{kind}_pool{rank}d",
        make,
        {
            "batch": (2, 1, None),
            "channels": (1, 3),
            "size": ((4, 10), (1, 5)) if rank < 3 else ((3, 6),),
            "kernel": ((1, 4), (2, 5)),
            "stride": (None, 1, 2, 3),
            "padding": (0, 1, 2),
            "dilation": (1, 2),
            "ceil_mode": (False, True),
            "include": (True, False),
            "divisor": (None, 3),
        },
        25,
    )


def adaptive(kind: str, rank: int) -> Family:
    def make(generator, batch, size, wanted, indices):
        sizes = tuple(int(n) for n in generator.integers(2, size, rank))
        output = tuple(int(n) for n in generator.integers(1, wanted, rank))
        kwargs = {"output_size": output if rank > 1 else output[0]}
        return [floats(generator, *([batch] if batch else []), 2, *sizes)], kwargs | (
            {"return_indices": indices} if kind == "max" else {}
        )

    choices = {"batch": (2, None), "size": (5, 9), "wanted": (3, 6), "indices": (False, True)}
    return Family(f"adaptive_{kind}_pool{rank}d", make, choices, 8)


def padding() -> Family:
    def make(generator, rank, axes, mode, value, high, batch):
        axes = min(axes, rank)
        pads = [int(p) for p in generator.integers(-1 if mode == "constant" else 0, high, 2 * axes)]
        x = floats(generator, *((2, 2) if batch else (2,)), *(int(n) for n in generator.integers(3, 7, rank)))
        return [x], {"pad": tuple(pads), "mode": mode, "value": value if mode == "constant" else None}

    modes = ("constant", "reflect", "replicate", "circular")
    choices = {
        "rank": (1, 2, 3),
        "axes": (1, 2, 3),
        "mode": modes,
        "value": (None, 1.5),
        "high": (2, 4),
        "batch": (True, False),
    }
    return Family("pad", make, choices, 60)


def batch_norm(function: str) -> Family:
    def make(generator, batch, channels, rank, affine, running, training, momentum, eps):
        x = floats(generator, batch, channels, *(int(n) for n in generator.integers(2, 5, rank)))
        stats = (
            [floats(generator, channels), floats(generator, channels, low=0.5, high=2.0)] if running else [None, None]
        )
        scale = [floats(generator, channels), floats(generator, channels)] if affine else [None, None]
        mode = {"training": training} if function == "batch_norm" else {"use_input_stats": training}
        return [x, *stats, *scale], mode | {"momentum": momentum, "eps": eps}

    choices = {
        "batch": (1, 3),
        "channels": (1, 4),
        "rank": (1, 2, 3),
        "affine": (True, False),
        "running": (True, False),
        "training": (True, False),
        "momentum": (0.1, 0.7),
        "eps": (1e-5, 1e-2),
    }
    return Family(function, make, choices, 30, 1e-8)


def layer_norm() -> Family:
    def make(generator, rank, axes, weight, bias, eps):
        shape = tuple(int(n) for n in generator.integers(2, 5, rank))
        tail = shape[-min(axes, rank) :]
        arrays = [
            floats(generator, *shape),
            tail,
            floats(generator, *tail) if weight else None,
            floats(generator, *tail) if bias else None,
        ]
        return arrays, {"eps": eps}

    choices = {
        "rank": (1, 2, 3, 4),
        "axes": (1, 2, 3),
        "weight": (True, False),
        "bias": (True, False),
        "eps": (1e-5, 1e-2),
    }
    return Family("layer_norm", make, choices, 20, 1e-8)


def group_norm() -> Family:
    def make(generator, batch, groups, each, rank, affine, eps):
        channels = groups * each
        x = floats(generator, batch, channels, *(int(n) for n in generator.integers(2, 5, rank)))
        return [x, groups, *([floats(generator, channels)] * 2 if affine else [None, None])], {"eps": eps}

    choices = {
        "batch": (1, 2),
        "groups": (1, 2, 3),
        "each": (1, 2),
        "rank": (1, 2, 3),
        "affine": (True, False),
        "eps": (1e-5, 0.1),
    }
    return Family("group_norm", make, choices, 20, 1e-8)


def other_norms() -> list[Family]:
    def response(generator, size, alpha, beta, k, rank):
        x = floats(generator, 2, 5, *(int(n) for n in generator.integers(2, 5, rank)))
        return [x], {"size": size, "alpha": alpha, "beta": beta, "k": k}

    def normalize(generator, p, dim, eps):
        return [floats(generator, 2, 3, 4)], {"p": p, "dim": dim, "eps": eps}

    first = {"size": (1, 2, 3, 5), "alpha": (1e-4, 0.5), "beta": (0.75, 1.5), "k": (1.0, 2.0), "rank": (1, 2, 3)}
    second = {"p": (2.0, 1.0, 3.0), "dim": (0, 1, -1), "eps": (1e-12, 0.5)}
    return [Family("local_response_norm", response, first, 15), Family("normalize", normalize, second, 10)]


ACTIVATIONS: dict[str, Mapping[str, Sequence[Any]]] = {
    "relu": {},
    "relu6": {},
    "leaky_relu": {"negative_slope": (0.01, 0.3, -0.5)},
    "elu": {"alpha": (1.0, 0.3)},
    "celu": {"alpha": (1.0, 0.3)},
    "selu": {},
    "gelu": {"approximate": ("none", "tanh")},
    "silu": {},
    "mish": {},
    "sigmoid": {},
    "logsigmoid": {},
    "tanh": {},
    "hardtanh": {"min_val": (-1.0, -0.3), "max_val": (1.0, 0.4)},
    "hardswish": {},
    "hardsigmoid": {},
    "softplus": {"beta": (1.0, 3.0), "threshold": (20.0, 1.0)},
    "softsign": {},
    "threshold": {"threshold": (0.1, -0.5), "value": (3.0,)},
    "glu": {"dim": (-1, 1)},
    "softmax": {"dim": (0, 1, -1)},
    "softmin": {"dim": (0, -1)},
    "log_softmax": {"dim": (0, 1, -1)},
}


def activation(name: str) -> Family:
    def make(generator, shape, scale, **kwargs):
        return [floats(generator, *shape) * scale], kwargs

    choices = {"shape": ((4,), (2, 4), (2, 4, 3, 2)), "scale": (1.0, 3.0)} | dict(ACTIVATIONS[name])
    # PyTorch has 1/6 in the slopes of hardswish and hardsigmoid, and 1/alpha in celu, in single precision
    return Family(name, make, choices, 6, 1e-6 if name in ("hardswish", "hardsigmoid", "celu") else TOLERANCE)


def prelu() -> Family:
    def make(generator, shape, each):
        return [floats(generator, *shape), floats(generator, shape[1] if each else 1)], {}

    return Family("prelu", make, {"shape": ((2, 4), (2, 4, 3, 2)), "each": (True, False)}, 4)


REDUCTIONS = ("mean", "sum", "none")


def elementwise_loss(name: str, choices: Mapping[str, Sequence[Any]], low: float = -2.0, high: float = 2.0) -> Family:
    def make(generator, shape, weighted=False, **kwargs):
        arrays = [floats(generator, *shape, low=low, high=high), floats(generator, *shape, low=low, high=high)]
        return arrays, kwargs | ({"weight": floats(generator, *shape, low=0.5)} if weighted else {})

    return Family(name, make, {"shape": ((5,), (2, 3), (2, 3, 2)), "reduction": REDUCTIONS} | dict(choices), 10)


def class_loss(name: str) -> Family:
    def make(generator, classes, spatial, batch, ignore, weighted, smoothing, reduction):
        lead = (batch,) if batch else ()
        x = floats(generator, *lead, classes, *(spatial if batch else ()))
        target = generator.integers(0, classes, (*lead, *(spatial if batch else ())))
        if ignore and target.size > 2:
            target.flat[1] = -100
        kwargs: dict[str, Any] = {"reduction": reduction}
        if weighted:
            kwargs["weight"] = floats(generator, classes, low=0.2, high=1.5)
        if name == "cross_entropy":
            kwargs["label_smoothing"] = smoothing
        return [x, np.asarray(target)], kwargs

    choices = {
        "classes": (2, 5),
        "spatial": ((), (3,), (2, 2)),
        "batch": (4, 1, None),
        "ignore": (False, True),
        "weighted": (False, True),
        "smoothing": (0.0, 0.1),
        "reduction": REDUCTIONS,
    }
    return Family(name, make, choices, 25)


def soft_targets() -> Family:
    def make(generator, classes, spatial, weighted, smoothing, reduction):
        target = np.abs(floats(generator, 3, classes, *spatial))
        kwargs = {"reduction": reduction, "label_smoothing": smoothing}
        weight = {"weight": floats(generator, classes, low=0.2, high=1.5)} if weighted else {}
        return [floats(generator, 3, classes, *spatial), target / target.sum(1, keepdims=True)], kwargs | weight

    choices = {
        "classes": (2, 5),
        "spatial": ((), (3,)),
        "weighted": (False, True),
        "smoothing": (0.0, 0.2),
        "reduction": REDUCTIONS,
    }
    return Family("cross_entropy", make, choices, 12)


def resizing() -> Family:
    def make(generator, rank, mode, by, factor, align, recompute):
        modes = {"linear": ("linear", "bilinear", "trilinear")[rank - 1], "cubic": "bicubic"}
        named = modes.get(mode, mode)
        sizes = tuple(int(n) for n in generator.integers(2, 6, rank))
        kwargs: dict[str, Any] = {"mode": named}
        if by == "size":
            kwargs["size"] = tuple(int(n) for n in generator.integers(1, 9, rank))
        else:
            kwargs |= {"scale_factor": factor, "recompute_scale_factor": recompute}
        if mode in ("linear", "cubic"):
            kwargs["align_corners"] = align
        return [floats(generator, 1, 2, *sizes)], kwargs

    choices = {
        "rank": (1, 2, 3),
        "mode": ("nearest", "nearest-exact", "linear", "cubic", "area"),
        "by": ("size", "factor"),
        "factor": (2.0, 1.7, 0.6),
        "align": (False, True),
        "recompute": (None, True),
    }
    return Family("interpolate", make, choices, 50)


def rearranging() -> list[Family]:
    def unfold(generator, kernel, dilation, padding, stride):
        return [floats(generator, 2, 3, 6, 7)], {
            "kernel_size": kernel, "dilation": dilation, "padding": padding, "stride": stride,
        }  # fmt: skip

    windows = {"kernel": (2, (3, 2)), "dilation": (1, 2), "padding": (0, 1, (2, 0)), "stride": (1, 2, (1, 3))}
    return [
        Family("unfold", unfold, windows, 12),
        Family("pixel_shuffle", lambda generator, factor: ([floats(generator, 2, 4 * factor**2, 3, 2)], {"upscale_factor": factor}), {"factor": (1, 2, 3)}, 3),
        Family("pixel_unshuffle", lambda generator, factor: ([floats(generator, 2, 2, 6, 12)], {"downscale_factor": factor}), {"factor": (1, 2, 3)}, 3),
    ]  # fmt: skip


FAMILIES = [
    *(convolution(rank, transposed) for rank in (1, 2, 3) for transposed in (False, True)),
    *(pool(kind, rank) for kind in ("max", "avg") for rank in (1, 2, 3)),
    *(adaptive(kind, rank) for kind in ("max", "avg") for rank in (1, 2, 3)),
    padding(),
    batch_norm("batch_norm"),
    batch_norm("instance_norm"),
    layer_norm(),
    group_norm(),
    *other_norms(),
    *map(activation, ACTIVATIONS),
    prelu(),
    elementwise_loss("mse_loss", {}),
    elementwise_loss("l1_loss", {}),
    elementwise_loss("smooth_l1_loss", {"beta": (1.0, 0.3)}),
    elementwise_loss("huber_loss", {"delta": (1.0, 0.4)}),
    elementwise_loss("binary_cross_entropy", {"weighted": (False, True)}, 0.02, 0.98),
    elementwise_loss("binary_cross_entropy_with_logits", {"weighted": (False, True)}),
    elementwise_loss("kl_div", {"log_target": (True,)}),
    class_loss("cross_entropy"),
    class_loss("nll_loss"),
    soft_targets(),
    resizing(),
    *rearranging(),
]


# --- drawing and comparing ---------------------------------------------------------------------------------------------------


def rows() -> Iterator[Row]:
    for number, family in enumerate(FAMILIES):
        generator = np.random.default_rng([number, zlib.crc32(family.function.encode())])
        seen: set[str] = set()
        for _ in range(6 * family.count):
            chosen = {name: values[int(generator.integers(len(values)))] for name, values in family.choices.items()}
            about = " ".join(f"{name}={value}" for name, value in chosen.items())
            if about in seen or len(seen) == family.count:
                continue
            arrays, kwargs = family.make(generator, **chosen)
            if accepted(family.function, arrays, kwargs):
                seen.add(about)
                yield Row(family.function, tuple(arrays), kwargs, family.tolerance, about)


def is_float(value: Any) -> bool:
    return isinstance(value, np.ndarray) and value.dtype.kind == "f"


def theirs(function: str, arrays: Sequence[Any], kwargs: Mapping[str, Any]) -> tuple[list[Any], Any]:
    """PyTorch's operands and results."""
    given = [torch.tensor(a) if isinstance(a, np.ndarray) else a for a in arrays]
    for slot in trained(function, arrays):
        given[slot].requires_grad_()
    named = {key: torch.tensor(v) if isinstance(v, np.ndarray) else v for key, v in kwargs.items()}
    return given, getattr(reference_functions, function)(*given, **named)


def trained(function: str, arrays: Sequence[Any]) -> list[int]:
    """Operands that gradients are taken by: floats, but not running statistics."""
    statistics = (1, 2) if function in ("batch_norm", "instance_norm") else ()
    return [slot for slot, a in enumerate(arrays) if is_float(a) and slot not in statistics]


def accepted(function: str, arrays: Sequence[Any], kwargs: Mapping[str, Any]) -> bool:
    try:
        _, result = theirs(function, arrays, kwargs)
    except (RuntimeError, ValueError, IndexError, NotImplementedError):
        return False
    first = result[0] if isinstance(result, tuple) else result
    # a window that lies in the padding alone has no maximum, and PyTorch no index for it
    return bool(first.numel()) and bool(torch.isfinite(first).all())


ROWS = list(rows())


def test_the_grid_is_wide() -> None:
    assert len(ROWS) >= 700
    assert {row.function for row in ROWS} == {family.function for family in FAMILIES}


@pytest.mark.parametrize("row", ROWS, ids=lambda row: f"{row.function} {row.about}")
def test_values_and_gradients(row: Row) -> None:
    slots = trained(row.function, row.arrays)
    reference, wanted = theirs(row.function, row.arrays, row.kwargs)
    mine = [irconv.tensor(a) if isinstance(a, np.ndarray) else a for a in row.arrays]
    for slot in slots:
        mine[slot].requires_grad_()
    if row.function in ("batch_norm", "instance_norm"):
        mine[1:3] = [None if a is None else irconv.nn.Buffer(a) for a in row.arrays[1:3]]
    named = {key: irconv.tensor(v) if isinstance(v, np.ndarray) else v for key, v in row.kwargs.items()}
    found = getattr(F, row.function)(*mine, **named)
    results = list(zip(*(r if isinstance(r, tuple) else (r,) for r in (found, wanted)), strict=True))
    for ours, other in results:
        close(ours.numpy(), other, row.tolerance)
    ours, other = results[0]
    seed = np.random.default_rng(1).uniform(-1, 1, ours.shape)
    ours.backward(seed)
    other.backward(torch.tensor(seed))
    for slot in slots:
        if reference[slot].grad is not None:
            assert mine[slot].grad is not None, f"no gradient by operand {slot}"
            close(mine[slot].grad.numpy(), reference[slot].grad, row.tolerance)
    if row.function in ("batch_norm", "instance_norm") and row.arrays[1] is not None:
        for slot in (1, 2):
            close(mine[slot].numpy(), reference[slot], row.tolerance)


def close(found: np.ndarray, wanted: Any, tolerance: float) -> None:
    expected = wanted.detach().numpy()
    assert found.shape == expected.shape
    scale = max(1.0, float(np.abs(expected[np.isfinite(expected)]).max(initial=0)))
    np.testing.assert_allclose(found, expected, rtol=tolerance, atol=tolerance * scale)
