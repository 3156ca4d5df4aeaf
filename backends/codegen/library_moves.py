"""Loads and stores of part of a vector by the processor's masked moves, where GCC knows them by name.

Elsewhere ``memcpy`` of a number of bytes known at run time does it, which is a call.
"""

from __future__ import annotations

from irconv.backends.codegen.form import Type
from irconv.types import F32, F64, I32, I64, U32, U64


def masked_moves(type_: Type) -> dict[str, str]:
    """What stands before the common text of load_part and store_part (``masked``, ``masked_store``), and behind (``end``)."""
    size = type_.dtype.bytes * type_.lanes
    known = type_.dtype in (F32, F64, I32, U32, I64, U64)
    if known and type_.lanes > 1 and size == 64:
        load, store, feature = *_avx512(type_), "__AVX512F__"
    elif known and type_.lanes > 1 and size == 32:
        load, store, feature = *_avx2(type_), "__AVX2__"
    else:
        return {"masked": "", "masked_store": "", "end": ""}
    # the address sanitizer checks memcpy, and knows nothing of masked moves
    condition = f"#if defined({feature}) && !defined(__clang__) && !defined(__SANITIZE_ADDRESS__)\n"
    return {"masked": f"{condition}{load}#else\n", "masked_store": f"{condition}{store}#else\n", "end": "#endif\n"}


def _avx512(type_: Type) -> tuple[str, str]:
    """A bit of a mask register for each lane."""
    if type_.dtype.bytes == 4:
        suffix, like, mask = "ups" if type_.dtype is F32 else "dqusi", "float" if type_.dtype is F32 else "int", "uint16_t"
    else:
        suffix, like, mask = "upd" if type_.dtype is F64 else "dqudi", "double" if type_.dtype is F64 else "long long", "uint8_t"
    vector = f"{like} __attribute__((vector_size(64)))"
    bits = f"({mask})((1u << n) - 1)"
    load = f"  return ({type_})__builtin_ia32_load{suffix}512_mask((const {like} *)p, ({vector}){{0}}, {bits});\n"
    store = f"  __builtin_ia32_store{suffix}512_mask(({like} *)p, ({vector})v, {bits});\n"
    return load, store


def _avx2(type_: Type) -> tuple[str, str]:
    """The sign bit of an integer as wide as the lane."""
    if type_.dtype.bytes == 4:
        suffix, like, whole = ("ps", "float", "int") if type_.dtype is F32 else ("d", "int", "int")
    else:
        suffix, like, whole = ("pd", "double", "long long") if type_.dtype is F64 else ("q", "long long", "long long")
    vector, mask = (f"{name} __attribute__((vector_size(32)))" for name in (like, whole))
    lanes = ", ".join(map(str, range(type_.lanes)))
    chosen = f"({mask})(({mask}){{{lanes}}} < ({whole})n)"
    load = f"  return ({type_})__builtin_ia32_maskload{suffix}256((const {vector} *)p, {chosen});\n"
    store = f"  __builtin_ia32_maskstore{suffix}256(({vector} *)p, {chosen}, ({vector})v);\n"
    return load, store

