"""The method `half`: 16-bit floats wherever values fit, 32-bit islands where they do not."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass, field

from edgewright.protocols import Context, OnnxTransform
from edgewright.types import Model, Refusal, Step, Target

FLOATS = ("float32",)


@dataclass(frozen=True)
class Params:
    """What the user may set."""

    dtype: str = field(
        default="fp16", metadata={"help": "fp16 (more digits) or bf16 (float32's range)", "choices": ("fp16", "bf16")}
    )
    headroom: float = field(
        default=0.5,
        metadata={"help": "share of the largest half that calibrated values may reach", "low": 0.01, "high": 1.0},
    )
    examples: int = field(
        default=32, metadata={"help": "calibration examples to measure values on", "low": 1, "high": 100000}
    )


class Half:
    """Casts weights and activations to 16 bits; the model's inputs and outputs stay as they are.

    Islands are found on the float32 graph, because a CPU may hide an overflow: onnxruntime casts to float32
    around operators it has no 16-bit kernel for, and leaves casts between two of them out.
    """

    name = "half"
    summary = "16-bit floats, with float32 islands where calibrated values or weights would overflow"
    Params = Params
    takes = "onnx"
    gives = "onnx"
    needs = "nothing"
    reads = ("task",)

    def check(self, model: Model, target: Target) -> Refusal | None:
        """Refuses a model without float32 inputs and outputs: it is likely to be in 16 bits already."""
        specs = (*model.signature.inputs, *model.signature.outputs)
        if not any(spec.dtype in FLOATS for spec in specs) and any("float16" in spec.dtype for spec in specs):
            return Refusal(f"{model.name} is in 16 bits already; leave `half` out, or start from the float32 model")
        return None

    def apply(self, model: Model, params: Params, context: Context) -> Model:
        """The graph converted, its islands found on the calibration data (on noise without a task)."""
        from edgewright import onnxkit
        from edgewright_plugins.half.convert import convert
        from edgewright_plugins.half.floats import TYPES

        feeds = list(context.feed(model, "calibration", limit=params.examples))
        proto, islands = convert(onnxkit.read(model.graph), feeds, params)
        blind = [] if context.task else ["no task: overflow was looked for on noise only"]
        notes = (*blind, *islands.notes(TYPES[params.dtype]))
        step = Step(self.name, "edgewright", asdict(params), notes, {"islands": dict(islands.ranges)})
        return model.with_graph(context.keep(onnxkit.pack(proto))).after(step)


HALF = Half()


def edgewright_transforms() -> Iterable[OnnxTransform]:
    """What this module offers."""
    return (HALF,)
