"""A method: sets the weights of smallest magnitude to zero (Han et al. 2015, arXiv:1506.02626, section 3)."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING

from edgewright.protocols import Context, OnnxTransform
from edgewright.types import Model, Refusal, Step, Target

if TYPE_CHECKING:
    import onnx


@dataclass(frozen=True)
class Params:
    """The command line, its help and the checks of `--apply acme-prune:share=0.3` come from here."""

    share: float = field(
        default=0.5, metadata={"help": "share of each layer's weights set to zero", "low": 0.0, "high": 0.95}
    )


class AcmePrune:
    """Zeroes each layer's weights below a quantile of their magnitude, without retraining."""

    name = "acme-prune"
    summary = "sets the smallest weights of each layer to zero"
    Params = Params
    takes = "onnx"
    gives = "onnx"
    needs = "nothing"
    reads: tuple[str, ...] = ()

    def check(self, model: Model, target: Target) -> Refusal | None:
        """Refuses what it cannot prune, before anything is done."""
        if len(model.stages) != 1:
            return Refusal(f"{model.name} has {len(model.stages)} stages; prune before it is split into stages")
        return None

    def apply(self, model: Model, params: Params, context: Context) -> Model:
        """The same graph with zeros in it, and one more step in the model's history."""
        from edgewright.onnxkit import pack, read

        proto = read(model.graph)
        weights = [w for w in proto.graph.initializer if _is_weight(w)]
        zeros = sum(_zero(weight, params.share) for weight in weights)
        step = Step(
            self.name,
            plugin="edgewright-acme",
            params=asdict(params),
            notes=(f"{zeros} weights of {len(weights)} layers are zero",),
        )
        return model.with_graph(context.keep(pack(proto))).after(step)


PRUNE = AcmePrune()


def edgewright_transforms() -> Iterable[OnnxTransform]:
    """The methods this module offers."""
    return (PRUNE,)


def _is_weight(tensor: onnx.TensorProto) -> bool:
    return tensor.data_type == tensor.FLOAT and len(tensor.dims) >= 2


def _zero(weight: onnx.TensorProto, share: float) -> int:
    """Set the smallest `share` of the weights to zero; returns how many are zero now."""
    import numpy as np
    from onnx import numpy_helper

    values = numpy_helper.to_array(weight)
    kept = np.abs(values) >= np.quantile(np.abs(values), share)
    weight.CopyFrom(numpy_helper.from_array(values * kept, weight.name))
    return int(np.count_nonzero(values * kept == 0))
