"""What MODEL stands for: finding the user's program in a Python, IR or ONNX file; and reading arrays from files."""

from __future__ import annotations

import importlib.util
import inspect
import os
import re
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from irconv import text
from irconv.errors import IrconvError, ModelError
from irconv.frontends import onnx
from irconv.graph import Graph
from irconv.nn.module import Module
from irconv.places import Location, is_library, location_of

KINDS = "MODEL is file.py:name, file.onnx or file.ir"


def load_model(model: str) -> Graph | Callable[..., Any]:
    """The graph of an ``.ir`` file, the network of an ``.onnx`` file, or the program that ``file.py:name`` names.

    Raises ModelError for what cannot be found or read, with the line of the user's file where that is the reason.
    """
    file, colon, name = model.rpartition(":")
    if not colon or os.path.exists(model):
        file, name = model, ""
    path = Path(file)
    if path.suffix not in (".py", ".ir", ".onnx"):
        raise ModelError(f"{model!r} is neither a Python, nor an IR, nor an ONNX file", hint=KINDS)
    if not path.is_file():
        raise ModelError(f"there is no file {path}", hint=KINDS)
    if path.suffix == ".ir":
        return text.load(path)
    if path.suffix == ".onnx":
        return onnx.load_model(path)
    module = import_file(path)
    if not name:
        raise ModelError(f"{path}: which name in it?", hint=f"give {path}:NAME with one of {_choices(module)}")
    return _resolve(module, path, name)


def import_file(path: Path) -> ModuleType:
    """Run a Python file as a module, its folder on the import path as for a script."""
    name = f"irconv_model_{re.sub(r'[^0-9A-Za-z_]', '_', path.stem)}"
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise ModelError(f"{path} cannot be imported")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses and the like look their module up
    folder = str(path.resolve().parent)
    if folder not in sys.path:
        sys.path.insert(0, folder)
    with users_code(f"{path} cannot be imported", only=True):
        spec.loader.exec_module(module)
    return module


def _resolve(module: ModuleType, path: Path, name: str) -> Graph | Callable[..., Any]:
    if not hasattr(module, name):
        raise ModelError(f"{path} has no {name!r}", hint=f"it has {_choices(module)}")
    found: Any = getattr(module, name)
    if not isinstance(found, Module) and callable(found) and (inspect.isclass(found) or _takes_nothing(found)):
        hint = "a class or function that makes a model is called without arguments"
        with users_code(f"{path}: {name}() failed", hint, only=True):
            found = found()
    if isinstance(found, Graph) or callable(found):
        return found
    raise ModelError(
        f"{path}: {name} is a {type(found).__name__}, not a model",
        hint="name a module, a class or function that makes one, a function of tensors, or a graph",
    )


def _takes_nothing(function: Callable[..., Any]) -> bool:
    """Whether a function can be called without arguments: it then makes a model, as against being one."""
    try:
        inspect.signature(function).bind()
    except (TypeError, ValueError):
        return False
    return True


def _choices(module: ModuleType) -> str:
    """The names in a user's file that could be models."""
    own = [
        name
        for name, value in vars(module).items()
        if not name.startswith("_")
        and (
            isinstance(value, (Module, Graph))
            or (callable(value) and getattr(value, "__module__", None) == module.__name__)
        )
    ]
    return ", ".join(own) or "no model"


@contextmanager
def users_code(failed: str, hint: str | None = None, only: bool = False) -> Iterator[None]:
    """Turn what the user's own code raises inside the block into a ModelError at their line.

    Errors of irconv pass through with their own line.  Exceptions that no line of the user's led to are faults of irconv's
    own and pass through too, unless ``only`` the user's code runs inside the block.
    """
    try:
        yield
    except IrconvError:
        raise
    except (Exception, SystemExit) as error:
        location = _raised_at(error)
        if location is None and not only:
            raise
        if isinstance(error, SyntaxError) and error.filename:
            location = Location(error.filename, error.lineno or 1)
        message = error.msg if isinstance(error, SyntaxError) else str(error)
        raise ModelError(f"{failed}: {type(error).__name__}: {message}", location=location, hint=hint) from error


def _raised_at(error: BaseException) -> Location | None:
    """The user's innermost line that an exception has passed through."""
    found = None
    step = error.__traceback__
    while step is not None:
        place = None if is_library(step.tb_frame.f_code) else location_of(step.tb_frame)
        found = replace(place, line=step.tb_lineno) if place is not None else found
        step = step.tb_next
    return found


# --- inputs ----------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class InputSpecs:
    """What ``--input`` said: by position, and by parameter name."""

    positional: tuple[Any, ...] = ()
    named: dict[str, Any] | None = None

    @property
    def any(self) -> bool:
        return bool(self.positional or self.named)


def read_file(file: str) -> np.ndarray | dict[str, np.ndarray]:
    """The array of an ``.npy`` file, the arrays of an ``.npz`` by name; never a pickle.  Raises ModelError."""
    try:
        with open(file, "rb") as opened:  # which np.load leaves open when the file is damaged
            loaded = np.load(opened, allow_pickle=False)
            return loaded if isinstance(loaded, np.ndarray) else {name: loaded[name] for name in loaded.files}
    except (OSError, ValueError, EOFError, KeyError) as error:
        hint = "give a .npy or .npz file, as numpy.save writes it"
        # NumPy advises to unpickle what it does not know
        reason = "it is none, or holds Python objects, which are never loaded" if "pickle" in str(error) else error
        raise ModelError(f"cannot read arrays from {file}: {reason}", hint=hint) from None
    except Exception as error:  # zipfile and zlib raise their own for damaged files
        raise ModelError(f"{file} is damaged: {error}", hint="write it again with numpy.savez") from None
