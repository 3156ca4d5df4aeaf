"""Where things happen in the user's program: the line of an op or an error, and the variable that takes a result."""

from __future__ import annotations

import dis
import os
import sys
from dataclasses import dataclass
from functools import lru_cache
from types import CodeType, FrameType


@dataclass(frozen=True, slots=True)
class Location:
    """A line of the user's program: ``file`` as it should be shown, 1-based ``line``."""

    file: str
    line: int

    def __str__(self) -> str:
        return f"{self.file}:{self.line}"


_HERE = os.path.dirname(os.path.abspath(__file__))
_ROOT = os.path.dirname(_HERE)
# an editable install keeps passes/ and backends/ beside irconv/, an ordinary one inside it
_LIBRARY = tuple(folder + os.sep for folder in (_HERE, os.path.join(_ROOT, "passes"), os.path.join(_ROOT, "backends")))
_INSTALLED = tuple(f"{os.sep}site-packages{os.sep}{name}{os.sep}" for name in ("numpy", "networkx", "click", "rich"))
_SCRIPTS = (f"{os.sep}bin{os.sep}irconv", f"{os.sep}irconv.exe{os.sep}__main__.py")
_STANDARD = tuple({os.path.dirname(os.__file__) + os.sep})
_STORES = ("STORE_FAST", "STORE_NAME", "STORE_GLOBAL", "STORE_DEREF")


@lru_cache(maxsize=4096)
def is_library(code: CodeType) -> bool:
    """Whether code belongs to irconv, to what it stands on, or to the standard library (other packages are users' code)."""
    file = code.co_filename
    if file == "<string>" and code.co_name == "__init__":
        return True  # what dataclasses generate
    if file.startswith((*_LIBRARY, "<frozen")) or file.endswith(_SCRIPTS) or any(part in file for part in _INSTALLED):
        return True
    return file.startswith(_STANDARD) and "site-packages" not in file


def user_call() -> tuple[FrameType | None, FrameType | None]:
    """The innermost frame that is the user's, and the library's frame that it called; None where there is none."""
    called: FrameType | None = None
    frame: FrameType | None = sys._getframe(1)
    while frame is not None and is_library(frame.f_code):
        called, frame = frame, frame.f_back
    return frame, called


def user_frame() -> FrameType | None:
    """The innermost frame that is the user's; None if there is none."""
    return user_call()[0]


@lru_cache(maxsize=1024)
def _shown(file: str, folder: str) -> str:
    """The path relative to the working folder when it lies inside, as it is otherwise."""
    if not folder:
        return file
    path = os.path.abspath(file)
    return os.path.relpath(path, folder) if path.startswith(folder + os.sep) else file


def location_of(frame: FrameType | None) -> Location | None:
    """The line a frame is at."""
    if frame is None:
        return None
    try:
        folder = os.getcwd()
    except OSError:  # the working folder is gone
        folder = ""
    return Location(_shown(frame.f_code.co_filename, folder), frame.f_lineno)


def user_location() -> Location | None:
    """The user's current line."""
    return location_of(user_frame())


@lru_cache(maxsize=1024)
def _stored_names(code: CodeType) -> dict[int, str]:
    """For the bytecode offsets of instructions before one that stores into a plain variable: that variable's name."""
    names: dict[int, str] = {}
    previous = 0
    for instruction in dis.get_instructions(code):
        if instruction.opname.startswith(_STORES):
            value = instruction.argval
            name = str(value[0] if isinstance(value, tuple) else value)
            # a call stands at its last cache entry while a Python function runs, at its start while a C function does
            names.update(dict.fromkeys(range(previous, instruction.offset, 2), name))
        if instruction.opname != "EXTENDED_ARG":  # which stands before a store where there are more than 256 names
            previous = instruction.offset
    return names


def stored_name(frame: FrameType) -> str | None:
    """The variable that will hold the result of what the frame is computing; None if it goes elsewhere."""
    return _stored_names(frame.f_code).get(frame.f_lasti)
