"""Where arrays lie in memory."""

from __future__ import annotations

import ctypes
from typing import Any


def address_of(array: Any) -> int:
    """Where the first logical element of a NumPy array is."""
    try:
        return ctypes.addressof(ctypes.c_char.from_buffer(array))  # an eighth of the time of what follows
    except (TypeError, ValueError, BufferError):  # not writable, empty, spread out, of a type that buffers do not know
        return array.__array_interface__["data"][0]
