"""Random work for every kernel template: a case, its inputs as the kernel reads them, and what has to come out."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import numpy as np
import numpy.typing as npt

from edgewright.grids import SHIFTS
from edgewright_exporters.kernels import (
    attention,
    blockattention,
    conv,
    depthwise,
    gelu,
    gemm,
    hamming,
    norm,
    pool,
    qconv,
    qdepthwise,
    qgemm,
    reorder,
    softmax,
    window,
)
from edgewright_exporters.kernels.attention_panel import AttentionCase
from edgewright_exporters.kernels.blockattention import BlockAttentionCase
from edgewright_exporters.kernels.codebook import INT4
from edgewright_exporters.kernels.qconv_cut import QConvCase
from edgewright_exporters.kernels.requantise import LIMITS
from edgewright_exporters.kernels.window import Window, correlate
from edgewright_exporters.tir.isa import Isa

Array = npt.NDArray[Any]
Random = np.random.Generator

CLOSE = 1e-5
SIZES = (1, 2, 3, 5, 7, 13, 16, 17, 29, 31, 32)
BYTES = ("uint8", "int8")
WIDE = (1, 5, 16, 31, 47, 64, 101)
WINDOWS = (
    Window((7, 7), (1, 1)),
    Window((11, 13), (3, 3), (1, 1), (1, 1, 1, 1)),
    Window((9, 8), (3, 3), (2, 2), (0, 0, 1, 1)),
    Window((13, 11), (5, 5), (2, 2), (2, 2, 2, 2)),
    Window((2, 2), (3, 3), (1, 1), (1, 1, 1, 1)),
    Window((6, 6), (1, 5), (1, 1), (0, 2, 0, 2)),
)


@dataclass(frozen=True, eq=False)
class Sample:
    """One call. Where `far` is None the outputs must be equal, else differ by at most that (it broadcasts)."""

    template: ModuleType
    case: Any
    tile: Any
    values: Mapping[str, Array]
    wanted: Array
    far: Any = None
    plain: Callable[[Array], Array] = np.asarray
    """From the layout in which the kernel writes to that of its reference."""


def samples_of(template: str, isa: Isa, count: int) -> Iterator[Sample]:
    """The same ones whenever it is asked, over all tiles of a template."""
    rng = np.random.default_rng(sum(map(ord, template)))
    for number in range(count):
        yield MAKERS[template](rng, isa, number)


def _floats(rng: Random, *shape: int) -> Array:
    return rng.standard_normal(shape, np.float32)


def _tile(template: ModuleType, case: Any, isa: Isa, number: int) -> Any:
    tiles = template.tiles(case, isa)
    return tiles[number % len(tiles)]


def _flag(rng: Random) -> bool:
    return bool(rng.integers(2))


def _any(rng: Random, choices: Sequence[Any]) -> Any:
    return choices[int(rng.integers(len(choices)))]


def _gemm(rng: Random, isa: Isa, number: int) -> Sample:
    rows, depth, columns = (_any(rng, sizes) for sizes in (SIZES, SIZES, WIDE))
    activation = ("none", "relu", "gelu")[number % 3]
    case = gemm.GemmCase(rows, depth, columns, bias=_flag(rng), activation=activation, residual=_flag(rng))
    x, weight = _floats(rng, rows, depth), _floats(rng, depth, columns)
    bias = _floats(rng, columns) if case.bias else None
    residual = _floats(rng, rows, columns) if case.residual else None
    tile = _tile(gemm, case, isa, number)
    packed = dict(zip(("w", "bias"), gemm.pack(case, tile, isa, weight=weight, bias=bias)))
    values = {"x": x, **packed, **({"residual": residual} if case.residual else {})}
    scale = np.abs(x) @ np.abs(weight) + sum(np.abs(a) for a in (bias, residual) if a is not None)
    wanted = gemm.reference(case, x=x, weight=weight, bias=bias, residual=residual)
    return Sample(gemm, case, tile, values, wanted, CLOSE * scale + 1e-6)


def _qgemm(rng: Random, isa: Isa, number: int, codes: Sequence[int] = ()) -> Sample:
    takes, gives = _any(rng, ("uint8", "int8")), ("uint8", "int8", "float32")[number % 3]
    floats = gives == "float32"
    rows, depth, columns = (_any(rng, sizes) for sizes in (SIZES, (1, 2, 3, 16, 37, 64), WIDE))
    case = qgemm.QGemmCase(
        rows, depth, columns, takes=takes, gives=gives, codes=tuple(codes),
        activation=_any(rng, ("none", "relu", "gelu")) if floats else "none", residual=floats and _flag(rng),
    )  # fmt: skip
    low, high = LIMITS[takes]
    constants: dict[str, Any] = {
        "weight": rng.choice(codes or np.arange(-127, 128), (depth, columns)).astype(np.int8),
        "scale": (rng.uniform(0.2, 1.0, columns) / (40 * depth**0.5)).astype(np.float32),
        "x_zero": int(rng.integers(low, high + 1)),
        "y_zero": 0 if floats else int(rng.integers(*LIMITS[gives])),
    }
    if _flag(rng):
        constants["bias"] = rng.integers(-(2**20), 2**20, columns).astype(np.int32)
    given = {"x": rng.integers(low, high + 1, (rows, depth)).astype(takes)}
    if case.residual:
        given["residual"] = _floats(rng, rows, columns)
    tile = _tile(qgemm, case, isa, number)
    packed = dict(zip(("w", "bias", "scale", "codes"), qgemm.pack(case, tile, isa, **constants)))
    wanted = qgemm.reference(case, **given, **constants)
    return Sample(qgemm, case, tile, {**given, **packed}, wanted, CLOSE * np.abs(wanted) + 1e-6 if floats else None)


def _qgemm4(rng: Random, isa: Isa, number: int) -> Sample:
    return _qgemm(rng, isa, number, INT4)


def _shifts(rng: Random, isa: Isa, number: int) -> Sample:
    return _qgemm(rng, isa, number, SHIFTS)


def _attention(rng: Random, isa: Isa, number: int) -> Sample:
    queries, keys = _any(rng, (1, 5, 16, 29)), _any(rng, (1, 7, 31, 50))
    heads, size, packed = _any(rng, (1, 2, 3)), _any(rng, (5, 20, 32)), bool(number % 2)
    keys = queries if packed else keys
    case = AttentionCase(2, queries, keys, heads, size, size**-0.5, packed=packed)
    q, k, v = (2 * _floats(rng, 2, tokens, heads * size) for tokens in (queries, keys, keys))
    values = {"qkv": np.concatenate((q, k, v), axis=-1)} if packed else {"q": q, "k": k, "v": v}
    wanted = attention.reference(case, q=q, k=k, v=v)
    tile = _tile(attention, case, isa, number)
    return Sample(attention, case, tile, values, wanted, CLOSE * np.abs(v).max())


def _blockattention(rng: Random, isa: Isa, number: int) -> Sample:
    queries, keys, size = _any(rng, (1, 16, 37)), _any(rng, (1, 7, 31, 50)), _any(rng, (5, 32))
    case = BlockAttentionCase(2, queries, keys, 2, size, size**-0.5, tile=_any(rng, (16, 32)), block=_any(rng, (3, 8)))
    q, k, v = (2 * _floats(rng, 2, tokens, 2 * size) for tokens in (queries, keys, keys))
    mask = (_floats(rng, 2, 2, case.tiles, case.blocks) > 0).astype(np.float32)
    mask[..., 0] = 1
    values = {"q": q, "k": k, "v": v, "mask": mask}
    tile = _tile(blockattention, case, isa, number)
    return Sample(blockattention, case, tile, values, blockattention.reference(case, **values), CLOSE * np.abs(v).max())


def _hamming(rng: Random, isa: Isa, number: int) -> Sample:
    queries, keys = _any(rng, (1, 5, 37)), _any(rng, (1, 7, 31, 50))
    heads, size = _any(rng, (1, 2, 3)), (5, 20, 64, 127, 128, 250)[number % 6]
    width = heads * size
    laid = [(2 * tokens * width, 0, tokens * width, size, width) for tokens in (queries, keys)]
    case = hamming.HammingCase(2, heads, queries, keys, size, laid[0], laid[1], scaled=True)
    q, k = (rng.choice((-1.0, 0.0, -0.0, 1.0, np.inf), about[0]).astype(np.float32) for about in laid)
    bounds = rng.choice((-0.5, 0.0, 1.0), (2, heads, size)).astype(np.float32)
    constants = {"q_bounds": bounds[0], "k_bounds": bounds[1], "scale": _floats(rng, heads)}
    tile = _tile(hamming, case, isa, number)
    packed = dict(zip(constants, hamming.pack(case, tile, isa, **constants), strict=True))
    wanted = hamming.reference(case, q=q, k=k, **constants)
    return Sample(hamming, case, tile, {"q": q, "k": k, **packed}, wanted)


def _norm(rng: Random, isa: Isa, number: int) -> Sample:
    case = norm.NormCase(_any(rng, SIZES), _any(rng, (1, 2, 7, 17, 31, 64, 127, 192)), residual=bool(number % 2))
    x, more = (1 + 3 * _floats(rng, case.rows, case.columns) for _ in range(2))
    scale, bias = _floats(rng, case.columns), _floats(rng, case.columns)
    residual = {"residual": more} if case.residual else {}
    wanted = norm.reference(case, x=x, scale=scale, bias=bias, **residual)[-1]
    tile = _tile(norm, case, isa, number)
    packed = dict(zip(("scale", "bias"), norm.pack(case, tile, isa, scale=scale, bias=bias)))
    return Sample(norm, case, tile, {"x": x, **residual, **packed}, wanted, CLOSE * max(1.0, np.abs(wanted).max()))


def _softmax(rng: Random, isa: Isa, number: int) -> Sample:
    case = softmax.SoftmaxCase(_any(rng, SIZES), _any(rng, (1, 2, 7, 17, 31, 64, 197)), _any(rng, (1.0, 0.125)))
    x = 10 * _floats(rng, case.rows, case.columns)
    wanted = softmax.reference(case, x=x)
    return Sample(softmax, case, _tile(softmax, case, isa, number), {"x": x}, wanted, CLOSE * wanted + 1e-30)


def _gelu(rng: Random, isa: Isa, number: int) -> Sample:
    size = _any(rng, (1, 3, 7, 101, 1024, 2999))
    x = rng.uniform(-12, 12, size).astype(np.float32)
    case = gelu.GeluCase(size)
    wanted = gelu.reference(case, x=x)
    return Sample(gelu, case, _tile(gelu, case, isa, number), {"x": x}, wanted, 5e-7 + 1e-7 * np.abs(wanted))


def _conv(rng: Random, isa: Isa, number: int) -> Sample:
    about = {"bias": _flag(rng), "activation": ("none", "relu", "relu6", "gelu")[number % 4], "residual": _flag(rng)}
    case = conv.ConvCase(2, _any(rng, (1, 3, 8, 13)), _any(rng, (1, 8, 11, 19)), _any(rng, WINDOWS), **about)
    return _image(conv, case, (case.filters, case.channels), rng, isa, number)


def _depthwise(rng: Random, isa: Isa, number: int) -> Sample:
    about = {"bias": _flag(rng), "activation": ("none", "relu", "relu6", "gelu")[number % 4]}
    case = depthwise.DepthwiseCase(2, _any(rng, (1, 4, 8, 13, 19)), _any(rng, WINDOWS), **about)
    return _image(depthwise, case, (case.channels, 1), rng, isa, number)


def _image(template: ModuleType, case: Any, size: tuple[int, int], rng: Random, isa: Isa, number: int) -> Sample:
    """Images go in and come out in blocks of channels; the error is a share of the sum of absolute products."""
    filters = size[0]
    images = {"x": _floats(rng, 2, case.channels, *case.window.image)}
    if getattr(case, "residual", False):
        images["residual"] = _floats(rng, 2, filters, *case.window.output)
    weight = _floats(rng, *size, *case.window.kernel)
    bias = _floats(rng, filters) if case.bias else None
    tile = _tile(template, case, isa, number)
    packed = dict(zip(("w", "bias"), template.pack(case, tile, isa, weight=weight, bias=bias)))
    blocked = {name: window.blocked(image, isa.lanes) for name, image in images.items()}
    return Sample(
        template, case, tile, {**blocked, **packed},
        wanted=template.reference(case, **images, weight=weight, bias=bias),
        far=CLOSE * (correlate(case.window, np.abs(images["x"]), np.abs(weight)) + 10.0),
        plain=_unblocked(case, filters, isa),
    )  # fmt: skip


def _qconv(rng: Random, isa: Isa, number: int) -> Sample:
    takes, gives = _any(rng, BYTES), ("uint8", "int8", "float32")[number % 3]
    codes = gives != "float32"
    channels, filters = _any(rng, (1, 3, 8, 13)), _any(rng, (1, 8, 11, 19))
    case = QConvCase(
        2, channels, filters, _any(rng, WINDOWS), takes=takes, gives=gives, activation="none" if codes else "relu",
        clip=codes and _flag(rng), residual="int8" if codes and number % 2 else "", gentle=_flag(rng),
    )  # fmt: skip
    return _codes(qconv, case, (filters, channels), rng, isa, number)


def _qdepthwise(rng: Random, isa: Isa, number: int) -> Sample:
    takes, gives, channels = _any(rng, BYTES), BYTES[number % 2], _any(rng, (1, 4, 8, 13, 19))
    case = qdepthwise.QDepthwiseCase(2, channels, _any(rng, WINDOWS), takes=takes, gives=gives, clip=_flag(rng))
    return _codes(qdepthwise, case, (channels, 1), rng, isa, number)


def _codes(template: ModuleType, case: Any, size: tuple[int, int], rng: Random, isa: Isa, number: int) -> Sample:
    """Images of bytes in blocks of channels, equal to their reference; sums are rounded to float32 alike."""
    filters, most = size[0], 64 if getattr(case, "gentle", False) else 127
    depth = size[1] * case.window.kernel[0] * case.window.kernel[1]
    constants: dict[str, Any] = {
        "weight": rng.integers(-most, most + 1, (*size, *case.window.kernel)).astype(np.int8),
        "scale": (rng.uniform(0.2, 1.0, filters) / (30 * depth**0.5)).astype(np.float32),
        "x_zero": int(rng.integers(*LIMITS[case.takes])),
        "y_zero": int(rng.integers(*LIMITS[case.gives])) if case.gives in LIMITS else 0,
        "clip": (20, 90) if case.clip else None,
    }
    if _flag(rng):
        constants["bias"] = rng.integers(-(2**20), 2**20, filters).astype(np.int32)
    images = {"x": _bytes(rng, case.takes, 2, case.channels, *case.window.image)}
    if residual := getattr(case, "residual", ""):
        images["residual"] = _bytes(rng, residual, 2, filters, *case.window.output)
        constants |= {"mid_scale": 0.043, "r_scale": 0.021, "y_scale": 0.037}
        constants |= {"mid_low": -100, "mid_high": 155, "r_zero": -9}
    tile = _tile(template, case, isa, number)
    taken = [each.name for each in template.arguments(case, tile, isa)[:-1] if each.name not in images]
    packed = dict(zip(taken, template.pack(case, tile, isa, **constants), strict=True))
    values = {name: window.blocked(image, isa.lanes) for name, image in images.items()}
    wanted = template.reference(case, **images, **constants)
    return Sample(template, case, tile, {**values, **packed}, wanted, plain=_unblocked(case, filters, isa))


def _bytes(rng: Random, dtype: str, *shape: int) -> Array:
    return rng.integers(*LIMITS[dtype], shape, endpoint=True).astype(dtype)


def _unblocked(case: Any, filters: int, isa: Isa) -> Callable[[Array], Array]:
    shape = (2, -1, *case.window.output, isa.lanes)
    return lambda found: window.unblocked(found.reshape(shape), filters)


def _pool(rng: Random, isa: Isa, number: int) -> Sample:
    kind, dtype = (("max", "float32"), ("mean", "float32"), ("max", "uint8"), ("max", "int8"))[number % 4]
    case = pool.PoolCase(2, _any(rng, (1, 4, 8, 13)), _any(rng, WINDOWS), kind, padded=_flag(rng), dtype=dtype)
    shape = (2, case.channels, *case.window.image)
    x = _floats(rng, *shape) if dtype == "float32" else _bytes(rng, dtype, *shape)
    far = CLOSE * np.abs(x).max() if kind == "mean" else None
    values, wanted = {"x": window.blocked(x, isa.lanes)}, pool.reference(case, x=x)
    tile = _tile(pool, case, isa, number)
    return Sample(pool, case, tile, values, wanted, far, plain=_unblocked(case, case.channels, isa))


def _reorder(rng: Random, isa: Isa, number: int) -> Sample:
    dtype, back = _any(rng, ("float32", *BYTES)), bool(number % 2)
    case = reorder.ReorderCase(2, _any(rng, (1, 4, 8, 13)), _any(rng, (1, 3, 16, 29, 300)), back, dtype)
    plain = (100 * _floats(rng, 2, case.channels, case.pixels)).clip(0).astype(dtype)
    blocks = reorder.reference(case, x=plain, lanes=isa.lanes)
    x, wanted = (blocks, plain) if back else (plain, blocks)
    return Sample(reorder, case, _tile(reorder, case, isa, number), {"x": x}, wanted)


MAKERS: Mapping[str, Callable[[Random, Isa, int], Sample]] = {
    "gemm": _gemm,
    "qgemm": _qgemm,
    "qgemm of 4 bits": _qgemm4,
    "qgemm of shifts": _shifts,
    "attention": _attention,
    "blockattention": _blockattention,
    "hamming": _hamming,
    "norm": _norm,
    "softmax": _softmax,
    "gelu": _gelu,
    "conv": _conv,
    "depthwise": _depthwise,
    "qconv": _qconv,
    "qdepthwise": _qdepthwise,
    "pool": _pool,
    "reorder": _reorder,
}
