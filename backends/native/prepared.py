"""What is made once of a weight (packed, transformed) and kept from call to call.

It lies beside the variable, shared by all executables that want the same of it: those of other batch sizes, say.
"""

from __future__ import annotations

import threading
from weakref import WeakKeyDictionary, WeakValueDictionary

from irconv.backends.arrays.base import Array
from irconv.backends.native.runtime import Entry, Pool, Table, address_of
from irconv.state import Variable

Key = tuple[object, ...]
_registry: WeakKeyDictionary[Variable, WeakValueDictionary[Key, Preparation]] = WeakKeyDictionary()
_lock = threading.Lock()


class Preparation:
    """A step that fills ``place`` from a state's array, or from a constant (``variable`` None).

    Who runs it, or reads the place, holds the locks of the variable: for writing, or for reading.
    """

    __slots__ = ("__weakref__", "_operand", "_table", "_version", "place", "variable")

    def __init__(self, entry: Entry, place: tuple[int, Array], operand: tuple[int, Array], variable: Variable | None):
        self.place = place[1]
        self.variable = variable
        self._operand = operand[1]  # kept alive: the table has only its address
        self._version = -1  # of the variable when the place was filled
        self._table = Table([entry])
        for slot, array in (place, operand):
            self._table.point(slot, address_of(array))

    @property
    def is_stale(self) -> bool:
        """Whether the variable has changed; a constant never does."""
        return self._version < 0 if self.variable is None else self._version != self.variable.version

    def run(self, pool: Pool) -> None:
        version = 0 if self.variable is None else self.variable.version
        pool.run(self._table.address, self._table.count)
        self._version = version


def shared(variable: Variable, key: Key, made: Preparation) -> Preparation:
    """The preparation that somebody made of the variable under this key and still uses, or ``made``."""
    with _lock:
        return _registry.setdefault(variable, WeakValueDictionary()).setdefault(key, made)
