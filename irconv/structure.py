"""Nested tuples, lists and dicts of values, flattened into (path, value) pairs and put together again.

A path is the dotted sequence of indices and keys: ``batch.images.0``.  From the paths alone the structure can be rebuilt
(all-integer keys make a tuple), which is how a graph's flat signature stands for nested outputs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from operator import itemgetter
from typing import Any

from irconv.errors import TraceError


def leaves(tree: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """(path, leaf) of a nested structure, depth first, dicts in insertion order."""
    if isinstance(tree, Mapping):
        for key, item in tree.items():
            if key == "" and not isinstance(item, (Mapping, tuple, list)):
                yield path, item  # as build() puts a value beside those whose paths go on from its own
                continue
            if not isinstance(key, str) or not key or "." in key or key.isdecimal():
                raise TraceError(
                    f"dict key {key!r} cannot name a value", hint="use non-empty strings without dots that are not numbers"
                )
            yield from leaves(item, _join(path, key))
    elif isinstance(tree, (tuple, list)):
        for index, item in enumerate(tree):
            yield from leaves(item, _join(path, str(index)))
    else:
        yield path, tree


def map_leaves(function: Callable[[str, Any], Any], tree: Any, path: str = "") -> Any:
    """The same structure with every leaf replaced by ``function(path, leaf)``."""
    if isinstance(tree, Mapping):
        return {key: map_leaves(function, item, _join(path, str(key))) for key, item in tree.items()}
    if isinstance(tree, (tuple, list)):
        items = [map_leaves(function, item, _join(path, str(index))) for index, item in enumerate(tree)]
        return _like_sequence(tree, items)
    return function(path, tree)


def _like_sequence(original: Any, items: list[Any]) -> Any:
    if hasattr(original, "_fields"):  # a named tuple
        return type(original)(*items)
    return items if isinstance(original, list) else tuple(items)


def build(pairs: Iterable[tuple[str, Any]]) -> Any:
    """The structure that the paths describe: one value for the empty path, tuples for integer keys, dicts otherwise."""
    items = list(pairs)
    if len(items) == 1 and items[0][0] == "":
        return items[0][1]
    branches: dict[str, list[tuple[str, Any]]] = {}
    for path, value in items:
        head, _, rest = path.partition(".")
        branches.setdefault(head, []).append((rest, value))
    built = {key: build(inner) for key, inner in branches.items()}
    if all(key.isdecimal() for key in built):
        return tuple(built.values())
    return built


def builder(paths: Sequence[str]) -> Callable[[Sequence[Any]], Any]:
    """:func:`build` for values that always come under the same paths: it looks at those once."""
    names = tuple(paths)
    if names == ("",):
        return itemgetter(0)
    if any(not name or "." in name for name in names):
        return lambda values: build(zip(names, values, strict=True))
    if all(name.isdecimal() for name in names):
        return tuple
    return lambda values: dict(zip(names, values, strict=True))


def _join(path: str, key: str) -> str:
    return f"{path}.{key}" if path else key
