"""Identifiers for C, made from names that people gave: of models, inputs and outputs."""

from __future__ import annotations

import re
from collections.abc import Iterable

_RESERVED = """
    alignas alignof and and_eq asm auto bitand bitor bool break case catch char class co_await co_return co_yield compl
    concept const const_cast consteval constexpr constinit continue decltype default delete do double dynamic_cast else enum
    explicit export extern false float for friend goto if inline int long mutable namespace new noexcept not not_eq nullptr
    operator or or_eq private protected public register reinterpret_cast requires restrict return short signed sizeof static
    static_assert static_cast struct switch template this thread_local throw true try typedef typeid typename typeof
    typeof_unqual union unsigned using virtual void volatile wchar_t while xor xor_eq
    linux unix i386 errno stdin stdout stderr main
    irconv res sem"""
RESERVED = frozenset(_RESERVED.split())
"""Keywords of C and C++, what compilers and headers define in lower case, and beginnings of other libraries' functions."""

LONGEST = 48
"""Characters of an identifier that are kept."""


def identifier(text: str, default: str) -> str:
    """A lower-case C and C++ identifier that resembles ``text``; ``default`` where nothing of it is left."""
    name = re.sub(r"[^a-z0-9]+", "_", text.lower()).strip("_")[:LONGEST].strip("_")
    if not name:
        name = default
    if name[0].isdigit():
        name = f"{default}_{name}"
    return f"{name}_" if name in RESERVED or name.endswith("_t") else name


def distinct(names: Iterable[str], taken: Iterable[str] = ()) -> list[str]:
    """The names, numbered where one comes again."""
    seen = set(taken)
    found = []
    for name in names:
        chosen, count = name, 1
        while chosen in seen:
            count += 1
            chosen = f"{name}_{count}"
        seen.add(chosen)
        found.append(chosen)
    return found
