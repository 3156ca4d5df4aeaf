"""The C printer: functions of the loop-level form as one C file.

Vectors are GCC vector types (gcc and clang have them on every processor), named after what they hold: ``f32x16``.  They are
read and written through types without alignment, so that any address of an element will do.  The file needs no header
but ``stdint.h``; functions beyond operators come from :mod:`irconv.backends.codegen.library` and are printed where they
are used.

Counters and sizes are 64 bits wide whatever the shapes.  With 32 bits for every loop of known bounds, LeNet, ResNet-18 and
MobileNet-V2 forward and LeNet's training step took 0.99 to 1.01 of the time (2-core AVX-512 virtual machine, one thread):
addresses are 64 bits wide, sizes and strides are constants, and a batch may grow past 2^31 elements without compiling
anything.  What is stored is another matter: the place of a pool's maximum takes a byte (:mod:`irconv.ops.pool_taps`).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

from irconv.backends.codegen.form import (
    Binary,
    Bits,
    Call,
    Compare,
    Convert,
    Expression,
    Gather,
    Lane,
    Literal,
    Load,
    Pointer,
    Select,
    Splat,
    Type,
    Unary,
    Variable,
)
from irconv.backends.codegen.lanes import Shuffle
from irconv.backends.codegen.library import definitions
from irconv.backends.codegen.statements import (
    Assign,
    Comment,
    Fence,
    For,
    Function,
    GetPointer,
    If,
    Let,
    LetPointer,
    LocalArray,
    MovePointer,
    PointerArray,
    Prefetch,
    Run,
    SetPointer,
    Statement,
    Store,
    TransposeTile,
)
from irconv.errors import BackendError
from irconv.types import BOOL, F16, DType

SCALARS = {
    "f16": "_Float16",
    "f32": "float",
    "f64": "double",
    "i8": "int8_t",
    "i16": "int16_t",
    "i32": "int32_t",
    "i64": "int64_t",
    "u8": "uint8_t",
    "u16": "uint16_t",
    "u32": "uint32_t",
    "u64": "uint64_t",
    "bool": "uint8_t",
}
"""C types of elements; a truth value is stored as one byte, 0 or 1."""

PARAMETERS = "void *const *buffers, const int64_t *sizes, int64_t first, int64_t last, int64_t worker"
COMMENT_WIDTH = 240


def print_c(functions: Sequence[Function], header: Iterable[str] = ()) -> str:
    """The functions as a C file.  ``header``: lines of a comment at its top (they may hold any text; it is made harmless)."""
    printer = _Printer()
    bodies = [printer.function(f) for f in functions]
    parts = [f"// {harmless(line)}".rstrip() for line in header]
    parts += ["#include <stdint.h>", "", *printer.types(), *definitions(printer.calls), "", "\n\n".join(bodies), ""]
    return "\n".join(parts)


def harmless(text: str) -> str:
    """Text that can stand in a one-line comment whatever it is: printable ASCII, no backslash (it could join lines)."""
    return "".join(c if " " <= c <= "~" and c != "\\" else "?" for c in text)[:COMMENT_WIDTH]


def c_type(type_: Type) -> str:
    """The C name of a scalar or vector type."""
    return SCALARS[type_.dtype.name] if type_.lanes == 1 else str(type_)


def number(value: float | bool, dtype: DType) -> str:
    """A literal of this element type, exact."""
    if dtype.is_float:
        if math.isnan(value):
            return f'(({SCALARS[dtype.name]})__builtin_nanf(""))'
        if math.isinf(value):
            return f"(({SCALARS[dtype.name]}){'-' if value < 0 else ''}__builtin_inff())"
        text = float(value).hex() + ("f" if dtype.name == "f32" else "")
        return f"((_Float16){text})" if dtype is F16 else f"({text})" if value < 0 or text[0] == "-" else text
    whole = int(value)
    if dtype.name == "u64":
        return f"{whole}ULL"
    if dtype.name == "i64":
        return f"(-{-whole - 1}LL - 1)" if whole == -(2**63) else f"({whole})" if whole < 0 else str(whole)
    return f"(({SCALARS[dtype.name]}){whole}{'LL' if whole < -(2**31) or whole >= 2**31 else ''})"


class _Printer:
    """Prints statements, and remembers which vector types and library functions they need."""

    def __init__(self) -> None:
        self.vectors: dict[Type, None] = {}
        self.calls: dict[tuple[str, Type], None] = {}

    def types(self) -> list[str]:
        """Definitions of the vector types."""
        lines = []
        used = {*self.vectors, *(t for _, t in self.calls if t.lanes > 1)}
        used |= {t.mask for t in used} | {t.unsigned for t in used}
        for type_ in sorted(used, key=str):
            element, size = SCALARS[type_.dtype.name], type_.lanes * type_.dtype.bytes
            lines.append(f"typedef {element} {type_} __attribute__((vector_size({size})));")
            lines.append(
                f"typedef {element} {type_}u __attribute__((vector_size({size}), aligned({type_.dtype.bytes}), may_alias));"
            )
        return lines

    def use(self, type_: Type) -> str:
        if type_.lanes > 1:
            self.vectors[type_] = None
        return c_type(type_)

    def helper(self, name: str, type_: Type) -> str:
        """The C name of a library function for a type, which will be printed."""
        self.use(type_)
        self.calls[name, type_] = None
        return f"irconv_{name}_{type_}"

    # --- functions ---------------------------------------------------------------------------------------------------

    def function(self, function: Function) -> str:
        lines = [f'__attribute__((visibility("default"))) void {function.name}({PARAMETERS}) {{']
        for slot, (name, dtype, written) in enumerate(function.buffers):
            qualifier = "" if written else "const "
            apart = "" if name in function.shared else "restrict "
            lines.append(f"  {qualifier}{SCALARS[dtype.name]} *{apart}{name} = buffers[{slot}];")
        lines += [f"  const int64_t {name} = sizes[{slot}];" for slot, name in enumerate(function.sizes)]
        unused = [*(name for name, _, _ in function.buffers), *function.sizes, "first", "last", "worker", "buffers", "sizes"]
        lines.append("  " + " ".join(f"(void){name};" for name in unused))
        lines += self.block(function.body, "  ")
        return "\n".join([*lines, "}"])

    def block(self, statements: Sequence[Statement], indent: str) -> list[str]:
        return [line for statement in statements for line in self.statement(statement, indent)]

    def statement(self, statement: Statement, indent: str) -> list[str]:
        match statement:
            case For():
                return self.loop(statement, indent)
            case If(condition, then, otherwise):
                lines = [f"{indent}if ({self.expression(condition)}) {{", *self.block(then, indent + "  ")]
                if otherwise:
                    lines += [f"{indent}}} else {{", *self.block(otherwise, indent + "  ")]
                return [*lines, f"{indent}}}"]
            case Comment(text):
                return [f"{indent}// {harmless(text)}"]
            case Run():
                return self.run(statement, indent)
            case Fence():
                return [f'{indent}__asm__ volatile("" ::: "memory");']
        return [indent + self.simple(statement)]

    def loop(self, loop: For, indent: str) -> list[str]:
        name = loop.variable.name
        start, stop = self.expression(loop.start), self.expression(loop.stop)
        head = f"for (int64_t {name} = {start}; {name} < {stop}; {name} += {loop.step}) {{"
        pragma = [f"{indent}#pragma GCC unroll {loop.unroll}"] if loop.unroll else []
        return [*pragma, indent + head, *self.block(loop.body, indent + "  "), f"{indent}}}"]

    def run(self, run: Run, indent: str) -> list[str]:
        """A call of another function, with a list of buffers of its own."""
        lines = [f"void *shown[{run.count}];", f"for (int i = 0; i < {run.count}; i++) shown[i] = buffers[i];"]
        lines += [f"shown[{slot}] = (void *){self.address(pointer, at)};" for slot, pointer, at in run.shown]
        lines.append(f"const int64_t given[] = {{{', '.join(map(self.expression, run.sizes))}}};")
        lines.append(f"{run.function}(shown, given, {self.expression(run.first)}, {self.expression(run.last)}, worker);")
        return [f"{indent}{{", *(f"{indent}  {line}" for line in lines), f"{indent}}}"]

    def simple(self, statement: Statement) -> str:
        match statement:
            case Let(variable, value, mutable):
                return f"{'' if mutable else 'const '}{self.use(variable.type)} {variable.name} = {self.expression(value)};"
            case Assign(variable, value):
                return f"{variable.name} = {self.expression(value)};"
            case Store():
                return self.store(statement)
            case TransposeTile():
                return self.transpose(statement)
            case Prefetch(pointer, index, far):
                return f"__builtin_prefetch({pointer.name} + {self.expression(index)}{', 0, 2' if far else ''});"
        return self.pointers(statement)

    def pointers(self, statement: Statement) -> str:
        """A statement about pointers and arrays."""
        match statement:
            case LetPointer(pointer, source, offset, mutable):
                constant = "" if mutable else "const"
                return f"__typeof__(&{source.name}[0]) {constant} {pointer.name} = {self.address(source, offset)};"
            case MovePointer(pointer, source, offset):
                return f"{pointer.name} = {self.address(source, offset)};"
            case LocalArray(pointer, size):
                return f"{SCALARS[pointer.dtype.name]} {pointer.name}[{max(1, size)}] __attribute__((aligned(64)));"
            case PointerArray(name, dtype, size):
                return f"const {SCALARS[dtype.name]} *{name}[{max(1, size)}];"
            case SetPointer(array, index, source, offset, condition, other):
                address = self.address(source, offset)
                if condition is not None and other is not None:
                    address = f"{self.expression(condition)} ? {address} : {other.name}"
                return f"{array.name}[{self.expression(index)}] = {address};"
            case GetPointer(pointer, array, index):
                element = SCALARS[pointer.dtype.name]
                return f"const {element} *const {pointer.name} = {array.name}[{self.expression(index)}];"
        raise BackendError(f"the C printer does not know {type(statement).__name__}")

    def address(self, source: Pointer, offset: Expression) -> str:
        return source.name if offset == Literal(0, offset.type) else f"({source.name} + {self.expression(offset)})"

    def transpose(self, tile: TransposeTile) -> str:
        target = f"{tile.target.name} + {self.expression(tile.target_index)}, {self.expression(tile.target_stride)}"
        source = f"{tile.source.name} + {self.expression(tile.source_index)}, {self.expression(tile.source_stride)}"
        if tile.rows is None or tile.columns is None:
            return f"{self.helper('transpose', tile.type)}({target}, {source});"
        counts = f"{self.expression(tile.rows)}, {self.expression(tile.columns)}"
        return f"{self.helper('transpose_part', tile.type)}({target}, {source}, {counts});"

    def store(self, store: Store) -> str:
        value, type_ = self.expression(store.value), store.value.type
        address = f"{store.pointer.name} + {self.expression(store.index)}"
        if store.pointer.dtype is not type_.dtype and not (store.pointer.dtype is BOOL and type_.lanes == 1):
            raise BackendError(f"cannot store {type_} to a buffer of {store.pointer.dtype}")
        if store.count is not None:
            return f"{self.helper('store_part', type_)}({address}, {value}, {self.expression(store.count)});"
        if type_.lanes == 1:
            return f"{store.pointer.name}[{self.expression(store.index)}] = {value};"
        return f"*({self.use(type_)}u *)({address}) = {value};"

    # --- expressions ---------------------------------------------------------------------------------------------------

    def expression(self, e: Expression) -> str:
        match e:
            case Literal(value, type_):
                text = number(value, type_.dtype)
                return text if type_.lanes == 1 else self.spread(text, type_)
            case Variable(name):
                return name
            case Select(condition, yes, no, type_):
                a, b, c = (self.expression(part) for part in (condition, yes, no))
                return f"({a} ? {b} : {c})" if type_.lanes == 1 else f"{self.helper('select', type_)}({a}, {b}, {c})"
            case Splat(value, type_):
                return self.spread(self.expression(value), type_)
            case Call(name, arguments, type_):
                return f"{self.helper(name, type_)}({', '.join(map(self.expression, arguments))})"
            case Load():
                return self.load(e)
            case Gather(pointer, index, stride, type_, count):
                source = f"{pointer.name} + {self.expression(index)}, {self.expression(stride)}"
                if count is None:
                    return f"{self.helper('gather', type_)}({source})"
                return f"{self.helper('gather_part', type_)}({source}, {self.expression(count)})"
            case Shuffle(first, second, order, type_):
                self.helper("shuffle", type_)
                parts = [f"({self.expression(first)})", f"({self.expression(second)})", *map(str, order)]
                return f"IRCONV_SHUFFLE_{type_}({', '.join(parts)})"
            case Convert() | Bits() | Lane():
                return self.reinterpreted(e)
        return self.operation(e)

    def operation(self, e: Expression) -> str:
        """What C writes as an operator."""
        match e:
            case Unary(sign, operand):
                return f"({sign}{self.expression(operand)})"
            case Binary(sign, left, right):
                return f"({self.expression(left)} {sign} {self.expression(right)})"
            case Compare(sign, left, right, type_):
                text = f"({self.expression(left)} {sign} {self.expression(right)})"
                return text if type_.lanes == 1 else f"(({self.use(type_)}){text})"
        raise BackendError(f"the C printer does not know {type(e).__name__}")

    def reinterpreted(self, e: Convert | Bits | Lane) -> str:
        """A value as another type, or a part of it."""
        match e:
            case Convert(value, type_):
                return self.convert(value, type_)
            case Bits(value, type_) if type_.lanes > 1:
                return f"(({self.use(type_)}){self.expression(value)})"
            case Bits(value, type_):
                return f"((union {{ {c_type(value.type)} from; {c_type(type_)} to; }}){{{self.expression(value)}}}).to"
        return f"({self.expression(e.value)})[{self.expression(e.index)}]"

    def spread(self, text: str, type_: Type) -> str:
        return f"{self.helper('splat', type_)}({text})"

    def convert(self, value: Expression, type_: Type) -> str:
        text = self.expression(value)
        if type_.lanes > 1:
            self.use(value.type)
            return f"__builtin_convertvector({text}, {self.use(type_)})"
        return f"({text} != 0)" if type_.dtype is BOOL else f"(({c_type(type_)}){text})"

    def load(self, load: Load) -> str:
        index = self.expression(load.index)
        if load.count is not None:
            return f"{self.helper('load_part', load.type)}({load.pointer.name} + {index}, {self.expression(load.count)})"
        if load.type.lanes == 1:
            return f"{load.pointer.name}[{index}]"
        return f"*(const {self.use(load.type)}u *)({load.pointer.name} + {index})"
