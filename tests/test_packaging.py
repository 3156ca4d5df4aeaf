"""What gets into the wheel: every package of the code base, its type marker, one version number."""

from __future__ import annotations

import importlib.metadata
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import irconv
import irconv.backends
import irconv.passes

PROJECT = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text())


def packages() -> set[str]:
    """Every folder with Python files, as the package that it is."""
    found = set()
    for module in (irconv, irconv.passes, irconv.backends):
        root = Path(module.__path__[0])
        for file in root.rglob("*.py"):
            found.add(".".join([module.__name__, *file.parent.relative_to(root).parts]))
    return found


def test_a_checkout_works_where_it_is():
    """Started in its folder, Python finds this irconv first, whatever is installed."""
    checkout = Path(__file__).parents[1]
    if not (checkout / "passes").is_dir():
        pytest.skip("the tests do not lie in a checkout")
    # not the finders of an installation that leads here
    program = """
import sys
sys.meta_path = [finder for finder in sys.meta_path if "editable" not in str(finder).lower()]
import irconv
print(irconv.passes)
"""
    done = subprocess.run([sys.executable, "-c", program], cwd=checkout, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert str(checkout / "passes") in done.stdout


def test_every_package_is_listed_and_every_one_listed_exists():
    assert sorted(PROJECT["tool"]["setuptools"]["packages"]) == sorted(packages())


def test_every_package_has_an_init_file():
    for module in (irconv, irconv.passes, irconv.backends):
        for file in Path(module.__path__[0]).rglob("*.py"):
            assert (file.parent / "__init__.py").exists(), file.parent


def test_files_that_are_not_python_are_listed():
    listed = PROJECT["tool"]["setuptools"]["package-data"]
    named = {(package, name) for package, names in listed.items() for name in names}
    found = set()
    for module in (irconv, irconv.passes, irconv.backends):
        root = Path(module.__path__[0])
        for file in root.rglob("*"):
            if file.is_file() and "__pycache__" not in file.parts and file.suffix != ".py":
                found.add((".".join([module.__name__, *file.parent.relative_to(root).parts]), file.name))
    assert named == found


def test_types_are_marked():
    assert (Path(irconv.__path__[0]) / "py.typed").exists()


def test_there_is_one_version():
    assert PROJECT["project"]["version"] == irconv.__version__ == importlib.metadata.version("irconv")


def test_dependencies_are_those_that_are_imported():
    required = {name.split(">")[0] for name in PROJECT["project"]["dependencies"]}
    assert required == {"numpy", "networkx", "click", "rich", "safetensors"}
