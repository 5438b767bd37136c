"""Writes loop nests over flat buffers: what every template needs of TVM's builder, with vectors in one line.

Python's own loops and conditions unroll and choose while the function is written; `loop` and `when` become part of it.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import Any

OPAQUE = 8
"""What TVM calls operators that it must not fuse with others."""


@dataclass(frozen=True)
class Argument:
    """A pointer that a kernel takes: `size` elements of `dtype` (a NumPy name) in a row."""

    name: str
    dtype: str
    size: int


def _writer() -> Any:
    """TVM's builder, untyped: its annotations are narrower than what it takes."""
    from tvm.tirx.script.builder import ir

    return ir


def function(symbol: str, arguments: Sequence[Argument], body: Callable[..., None]) -> Any:
    """A PrimFunc `void symbol(argument *, ..., int32_t begin, int32_t end)`.

    Args:
        symbol: the name in the object file.
        arguments: inputs first, then outputs; none may overlap another.
        body: called once with a buffer per argument, then `begin` and `end`, to write what the function does.
    """
    from tvm.script.ir_builder import IRBuilder

    T = _writer()

    with IRBuilder() as builder:
        with T.prim_func(s_tir=True):
            T.func_name(symbol)
            T.func_attr({"tirx.noalias": True, "global_symbol": symbol})
            pointers = [T.arg(argument.name, T.handle(argument.dtype)) for argument in arguments]
            begin, end = T.arg("begin", T.int32()), T.arg("end", T.int32())
            buffers = [
                T.decl_buffer((argument.size,), argument.dtype, data=pointer)
                for argument, pointer in zip(arguments, pointers)
            ]
            body(*buffers, begin, end)
        return builder.get()


def caller(symbol: str, arrays: Sequence[tuple[Sequence[int], str]], items: int) -> Any:
    """A PrimFunc over arrays that does all the work of `symbol`, a function as `function` writes them, in one call.

    So TVM's own models call the very code that everybody else calls, whatever its template. It has no name of its own:
    arrays of other shapes may be given to the same function.

    Args:
        symbol: the name in the object file.
        arrays: shape and dtype of each; inputs first, then outputs, in the order of the arguments of `symbol`.
        items: how many pieces its work has.
    """
    from tvm.script.ir_builder import IRBuilder

    T = _writer()

    with IRBuilder() as builder:
        with T.prim_func(is_private=True, s_tir=True):
            T.func_attr({"tirx.noalias": True, "op_pattern": OPAQUE})
            buffers = [T.arg(f"a{at}", T.buffer(list(shape), dtype)) for at, (shape, dtype) in enumerate(arrays)]
            with T.sblock("call"):  # where TVM looks whether a function only gives its array another shape
                wholes = [buffer[tuple(slice(0, n) for n in shape)] for buffer, (shape, _) in zip(buffers, arrays)]
                T.reads(*wholes)
                T.writes(*wholes)
                T.evaluate(T.call_extern("int32", symbol, *(buffer.data for buffer in buffers), 0, items))
        return builder.get()


def loop(begin: Any, end: Any) -> AbstractContextManager[Any]:
    """`for i in begin .. end - 1`: a context whose value is the index."""
    T = _writer()

    return T.serial(begin, end)


@contextmanager
def when(condition: Any) -> Generator[None, None, None]:
    """What is written inside runs only where `condition` holds."""
    T = _writer()

    with T.If(condition), T.Then():
        yield


def branch(condition: Any, yes: Callable[[], None], no: Callable[[], None]) -> None:
    """Writes what `yes` writes where `condition` holds, and what `no` writes elsewhere."""
    T = _writer()

    with T.If(condition):
        with T.Then():
            yes()
        with T.Else():
            no()


def registers(size: int, dtype: str) -> Any:
    """A buffer of the function's own. It lives in registers where every index into it is a constant."""
    T = _writer()

    return T.alloc_buffer((size,), dtype, scope="local")


def load(buffer: Any, at: Any, lanes: int) -> Any:
    """`lanes` elements in a row, from `at`."""
    T = _writer()

    return buffer[at] if lanes == 1 else buffer[T.ramp(at, 1, lanes)]


def store(buffer: Any, at: Any, value: Any, lanes: int) -> None:
    """Writes `lanes` elements in a row, from `at`."""
    T = _writer()

    T.buffer_store(buffer, value, [at if lanes == 1 else T.ramp(at, 1, lanes)])


def splat(value: Any, lanes: int, dtype: str = "") -> Any:
    """`value` in each of `lanes` lanes; a Python number needs its `dtype`."""
    from tvm.tirx import const

    T = _writer()

    scalar = const(value, dtype) if dtype else value
    return scalar if lanes == 1 else T.broadcast(scalar, lanes)


def least(first: Any, second: Any) -> Any:
    """The smaller of two values, lane by lane."""
    from tvm import tirx

    return tirx.min(first, second)


def largest(first: Any, second: Any) -> Any:
    """The larger of two values, lane by lane."""
    from tvm import tirx

    return tirx.max(first, second)


def both(first: Any, second: Any) -> Any:
    """Whether two conditions hold."""
    from tvm import tirx

    return tirx.all(first, second)


def either(first: Any, second: Any) -> Any:
    """Whether one of two conditions holds."""
    from tvm import tirx

    return tirx.any(first, second)


def cast(value: Any, dtype: str) -> Any:
    """Each lane converted to `dtype`, which names the lanes too ("int32x16"); floats lose their fraction."""
    from tvm.tirx import Cast

    return Cast(dtype, value)


def reinterpret(value: Any, dtype: str, lanes: int) -> Any:
    """The same bits as `lanes` lanes of `dtype`."""
    from tvm import tirx

    return tirx.reinterpret(dtype if lanes == 1 else f"{dtype}x{lanes}", value)


def intrinsic(name: str, dtype: str, *values: Any) -> Any:
    """What LLVM's function `name` returns for `values`; overloaded ones are chosen by the types."""
    from tvm import tirx

    return tirx.call_llvm_pure_intrin(dtype, name, *values)


def round_even(value: Any) -> Any:
    """Each float to the nearest integer, halves to the even one."""
    from tvm import tirx

    return tirx.nearbyint(value)


def constants(values: Sequence[float], dtype: str) -> Any:
    """A vector whose lanes hold `values`."""
    from tvm import tirx

    return shuffle([tirx.const(value, dtype) for value in values], range(len(values)))


def held(value: Any) -> Any:
    """A variable that holds `value`: computed here, once, however often it is read from here on."""
    T = _writer()

    return T.bind(value)


def let(value: Any, use: Callable[[Any], Any]) -> Any:
    """`use(value)` as one expression in which `value` is computed once, however often `use` reads it."""
    from tvm.tirx import Let, Var

    name = Var("t", value.ty)
    return Let(name, value, use(name))


def root(value: Any) -> Any:
    """The square root of each lane."""
    from tvm import tirx

    return tirx.sqrt(value)


def choose(lanes: Sequence[bool], yes: Any, no: Any) -> Any:
    """A vector with the lanes of `yes` where `lanes` is true and those of `no` elsewhere."""
    return shuffle((yes, no), [lane + (0 if chosen else len(lanes)) for lane, chosen in enumerate(lanes)])


def shuffle(vectors: Sequence[Any], lanes: Sequence[int]) -> Any:
    """A vector of the `lanes` given, which are counted through all of `vectors`."""
    from tvm import tirx

    return tirx.Shuffle(list(vectors), [tirx.const(lane, "int32") for lane in lanes])
