"""Every array function, keyword and method that the shared kernels use exists in the installed CuPy.  No GPU is needed."""

from __future__ import annotations

import ast
import inspect
from pathlib import Path

import numpy as np
import pytest

import irconv.backends.arrays as arrays
from irconv.backends.arrays.elementwise import UFUNCS
from irconv.backends.arrays.reduce import FOLDS

cupy = pytest.importorskip("cupy", reason="cupy is not installed")

FILES = sorted(Path(arrays.__file__).parent.glob("*.py"))
NUMPY_ONLY = {("take", "mode")}
"""Used where ``request.parallel`` says that the array module is NumPy."""

NUMPY_ONLY_METHODS = {"ctypes", "__array_interface__"}
"""Used to align memory of the host, and to find where arrays of the host are."""


def is_module(node: ast.expr) -> bool:
    """Whether an expression is the array module: ``xp``, ``request.xp``, ``self.xp``."""
    return (isinstance(node, ast.Name) and node.id == "xp") or (isinstance(node, ast.Attribute) and node.attr == "xp")


def uses() -> list[tuple[str, str, tuple[str, ...], int]]:
    """(file and line, function, keywords, positional arguments) of every use of a function of the array module."""
    found = []
    for path in FILES:
        tree = ast.parse(path.read_text(encoding="utf-8"))
        called = {id(n.func): n for n in ast.walk(tree) if isinstance(n, ast.Call)}
        for node in ast.walk(tree):
            if isinstance(node, ast.Attribute) and is_module(node.value):
                call = called.get(id(node))
                keywords = tuple(k.arg for k in call.keywords if k.arg) if call else ()
                found.append((f"{path.name}:{node.lineno}", node.attr, keywords, len(call.args) if call else 0))
    return found


def accepts(function: object, keyword: str, positional: int) -> bool:
    """Whether a function of CuPy takes this keyword and that many positional arguments."""
    if isinstance(function, cupy.ufunc):
        return keyword in ("", "out", "dtype", "casting") and positional <= function.nargs
    parameters = inspect.signature(function).parameters
    if any(p.kind is p.VAR_POSITIONAL for p in parameters.values()):
        return not keyword or keyword in parameters
    if inspect.isclass(function):
        return True
    return positional <= len(parameters) and (not keyword or keyword in parameters)


def test_functions_and_keywords_exist() -> None:
    missing = []
    for where, name, keywords, positional in uses():
        function = getattr(cupy, name, None)
        if function is None:
            missing.append(f"{where}: cupy.{name}")
        elif callable(function) and not inspect.isclass(function):
            missing += [
                f"{where}: cupy.{name}({keyword}=)"
                for keyword in ("", *keywords)
                if (name, keyword) not in NUMPY_ONLY and not accepts(function, keyword, positional)
            ]
    assert not missing


def test_functions_named_in_tables_exist() -> None:
    names = [*UFUNCS.values(), *FOLDS.values(), "argmax", "argmin"]
    assert [name for name in names if not hasattr(cupy, name)] == []
    for name in FOLDS.values():
        assert all(accepts(getattr(cupy, name), keyword, 1) for keyword in ("axis", "out", "keepdims"))
    assert all(accepts(getattr(cupy, name), "dtype", 1) for name in ("sum", "prod"))


def test_scatter_add_exists() -> None:
    assert hasattr(cupy.add, "at")


def test_array_methods_exist() -> None:
    """Whatever is called on anything by the name of a method of NumPy arrays must be one of CuPy's."""
    names = set()
    for path in FILES:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Attribute) and not is_module(node.value):
                names.add(node.attr)
    used = {name for name in names if hasattr(np.ndarray, name)}
    assert {"reshape", "view", "fill", "swapaxes", "transpose"} <= used
    assert sorted(name for name in used - NUMPY_ONLY_METHODS if not hasattr(cupy.ndarray, name)) == []


def test_the_search_finds_what_it_looks_for() -> None:
    found = uses()
    assert len(found) > 100
    assert {"copyto", "matmul", "maximum"} <= {name for _, name, _, _ in found}
    assert not accepts(cupy.add, "where", 2) and not accepts(cupy.take, "mode", 2)
