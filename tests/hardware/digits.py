"""The network of the example `digits`, also in int8, and its images."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from onnxruntime import quantization
from onnxruntime.quantization import QuantType

FOLDER = Path(__file__).parents[2] / "examples" / "digits"
DIGITS = FOLDER / "digits.onnx"


def images(split: str, count: int) -> Any:
    """The first ones of a split, float32 [count, 1, ...]: the graph takes one a run."""
    with np.load(FOLDER / "digits.npz") as task:
        return task[f"x_{split}"][:count, None]


class _Feeds(quantization.CalibrationDataReader):
    def __init__(self) -> None:
        self._feeds = iter([{"image": image} for image in images("train", 8)])

    def get_next(self) -> Any:
        return next(self._feeds, None)


def write_int8(place: Path) -> Path:
    """As ONNX Runtime's own quantiser writes it."""
    kinds = {"activation_type": QuantType.QUInt8, "weight_type": QuantType.QInt8, "per_channel": True}
    quantization.quantize_static(DIGITS, place, _Feeds(), **kinds)
    return place
