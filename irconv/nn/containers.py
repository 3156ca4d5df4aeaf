"""Modules that hold modules: in sequence, by number, by name."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from irconv.errors import AttributeValueError
from irconv.nn.module import Module


class _Numbered(Module):
    """Modules held under the attributes "0", "1", ..."""

    def __len__(self) -> int:
        return len(list(self.children()))

    def __iter__(self) -> Iterator[Module]:
        return self.children()

    def __getitem__(self, index: Any) -> Any:
        parts = list(self.children())
        if isinstance(index, slice):
            return Sequential(*parts[index]) if isinstance(self, Sequential) else ModuleList(parts[index])
        return parts[index]

    def __setitem__(self, index: int, module: Module) -> None:
        names = [name for name, _ in self.named_children()]
        setattr(self, names[index], _checked(module))

    def append(self, module: Module) -> Any:
        """Add a module at the end; returns itself."""
        setattr(self, str(len(self)), _checked(module))
        return self

    def extend(self, modules: Iterable[Module]) -> Any:
        """Add modules at the end; returns itself."""
        for module in modules:
            self.append(module)
        return self


def _checked(module: Any) -> Module:
    if not isinstance(module, Module):
        raise AttributeValueError(f"needs a module, got a {type(module).__name__}")
    return module


class Sequential(_Numbered):
    """Modules that run one after the other.  ``Sequential(a, b)``, or ``Sequential({"first": a, "second": b})`` with names."""

    def __init__(self, *modules: Module | Mapping[str, Module]):
        if len(modules) == 1 and isinstance(modules[0], Mapping):
            for name, module in modules[0].items():
                self.add_module(name, _checked(module))
        else:
            self.extend(modules)  # type: ignore[arg-type]  # append checks each

    def forward(self, x: Any) -> Any:
        for module in self.children():
            x = module(x)
        return x


class ModuleList(_Numbered):
    """A list of modules; it has no forward of its own."""

    def __init__(self, modules: Iterable[Module] = ()):
        self.extend(modules)


class ModuleDict(Module):
    """A dictionary of modules; it has no forward of its own."""

    def __init__(self, modules: Mapping[str, Module] | None = None):
        self.update(modules or {})

    def update(self, modules: Mapping[str, Module]) -> None:
        """Add or replace modules by name."""
        for name, module in modules.items():
            self[name] = module

    def __setitem__(self, name: str, module: Module) -> None:
        if hasattr(type(self), name):
            raise AttributeValueError(f"{name!r} cannot name a module of a ModuleDict: it is one of its methods")
        self.add_module(name, _checked(module))

    def __getitem__(self, name: str) -> Module:
        return dict(self.named_children())[name]

    def __delitem__(self, name: str) -> None:
        del self.__dict__[name]

    def __len__(self) -> int:
        return len(list(self.children()))

    def __iter__(self) -> Iterator[str]:
        return iter(self.keys())

    def __contains__(self, name: str) -> bool:
        return name in self.keys()

    def keys(self) -> list[str]:
        """The names, in order."""
        return [name for name, _ in self.named_children()]

    def values(self) -> list[Module]:
        """The modules, in order."""
        return list(self.children())

    def items(self) -> list[tuple[str, Module]]:
        """(name, module), in order."""
        return list(self.named_children())
