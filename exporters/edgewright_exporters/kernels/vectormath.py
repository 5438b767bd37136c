"""Functions that no instruction set has for whole vectors, written as polynomials over float32 lanes."""

from __future__ import annotations

from collections.abc import Sequence
from math import e, log, log2
from typing import Any

from edgewright_exporters.tir import builder

LOWEST = -3.4028234663852886e38
"""The smallest float32: what a search for the largest starts from."""

EXP_LOWEST, EXP_HIGHEST = -87.0, 88.0
"""Where `exp` is held: beyond, the result has no exponent of its own. Below 1.6e-38 a softmax sees nothing."""

EXP_TERMS = (
    1.0,
    1.0,
    0.4999999403953552,
    0.16666515171527863,
    0.04166845604777336,
    0.008369418792426586,
    0.0013813144760206342,
)
"""exp(r) for |r| <= log(2) / 2: minimax for the relative error with the first two terms exact, 3.3e-9."""

LN2_HIGH = 0.693359375
LN2_LOW = log(2) - LN2_HIGH
"""log(2) in two parts, the first of 10 bits, so that its multiples are exact (Cody and Waite, 1980)."""

ROUND_TO_INTEGER = 1.5 * 2.0**23
"""Added to a small float32, it leaves the nearest integer in the low bits of the sum."""

GELU_END = 5.5
"""From here on the Gaussian's tail times x is below 1.1e-7."""

GELU_TERMS = (
    0.0029797740280628204,
    -0.0250080693513155,
    0.0945579782128334,
    -0.20680780708789825,
    0.27188852429389954,
    -0.17716768383979797,
    -0.05138571187853813,
    0.21844203770160675,
    -0.16310779750347137,
    -0.03492681130766869,
    0.1333078294992447,
    -0.04910524934530258,
    -0.04361056536436081,
    0.03018166311085224,
    0.005366888828575611,
    -0.0056049940176308155,
)
"""The Gaussian's tail at a = (u + 1) * GELU_END / 2, a polynomial in u: minimax for a times its error, 1.3e-7."""


def exp(value: Any, lanes: int) -> Any:
    """e^value, to two units in the last place for values in EXP_LOWEST..EXP_HIGHEST, and held there beyond."""
    low, high = (builder.splat(end, lanes, "float32") for end in (EXP_LOWEST, EXP_HIGHEST))
    shift = builder.splat(ROUND_TO_INTEGER, lanes, "float32")
    log2e = builder.splat(log2(e), lanes, "float32")

    def of_held(x: Any) -> Any:
        return builder.let(x * log2e + shift, lambda shifted: _scaled(x, shifted, shifted - shift, lanes))

    return builder.let(builder.least(builder.largest(value, low), high), of_held)


def _scaled(x: Any, shifted: Any, whole: Any, lanes: int) -> Any:
    """exp(x) = 2^whole * exp(r): the exponent is built from the bits of `shifted`, whose lowest are `whole`."""
    bits = builder.reinterpret(shifted, "int32", lanes) << builder.splat(23, lanes, "int32")
    power = builder.reinterpret(bits + builder.splat(127 << 23, lanes, "int32"), "float32", lanes)
    rest = x - whole * builder.splat(LN2_HIGH, lanes, "float32") - whole * builder.splat(LN2_LOW, lanes, "float32")
    return builder.let(rest, lambda r: polynomial(EXP_TERMS, r, lanes) * power)


def gelu(value: Any, lanes: int) -> Any:
    """value times the share of the normal distribution below it (the exact GELU), to 1e-6 absolute.

    Written as max(x, 0) - a Q(a) with a = |x| and Q the distribution's tail: the product is never above 0.17,
    so that no error grows with x. (Hendrycks and Gimpel, "Gaussian Error Linear Units", 2016, section 2.)
    """
    zero, end = builder.splat(0.0, lanes, "float32"), builder.splat(GELU_END, lanes, "float32")
    one, scale = builder.splat(1.0, lanes, "float32"), builder.splat(2.0 / GELU_END, lanes, "float32")

    def of(x: Any) -> Any:
        def of_size(a: Any) -> Any:
            return builder.let(
                a * scale - one, lambda u: builder.largest(x, zero) - a * polynomial(GELU_TERMS, u, lanes)
            )

        return builder.let(builder.least(builder.largest(x, zero - x), end), of_size)

    return builder.let(value, of)


def polynomial(terms: Sequence[float], value: Any, lanes: int) -> Any:
    """terms[0] + terms[1] * value + ..., by Horner's rule; `value` should be a variable, for it is read often."""
    total = builder.splat(terms[-1], lanes, "float32")
    for term in reversed(terms[:-1]):
        total = total * value + builder.splat(term, lanes, "float32")
    return total
