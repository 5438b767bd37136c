"""The values that flow: Model -> Artifact -> Plan -> Bundle -> Measurement -> Report.

Part of the device set: Python 3.9 and numpy only, and numpy itself is needed for type checking alone.
Values that hold arrays or modules compare by identity and carry a `digest`.
"""

from edgewright.types.devices import Device, Figure, Target
from edgewright.types.energy import Mark, Recording, Source, Trace
from edgewright.types.measurements import Cost, KernelCost, Measurement, Metric, StageCost, unknown
from edgewright.types.models import Gate, Goal, Graph, GraphFile, Model, Stage, Step, TorchGraph, Variant
from edgewright.types.plans import Artifact, Companion, Needs, Placement, Plan, bytes_of
from edgewright.types.plugins import Json, Offer, Refusal
from edgewright.types.reports import (
    Closeup,
    Entrant,
    Evidence,
    Exit,
    Exits,
    Judgement,
    Operator,
    Report,
    Row,
    Spread,
    Tradeoff,
    Verdict,
)
from edgewright.types.tensors import Array, Arrays, Dim, Signature, State, TensorSpec

__all__ = [
    "Array",
    "Arrays",
    "Artifact",
    "Closeup",
    "Companion",
    "Cost",
    "Device",
    "Dim",
    "Entrant",
    "Evidence",
    "Exit",
    "Exits",
    "Figure",
    "Gate",
    "Goal",
    "Graph",
    "GraphFile",
    "Json",
    "Judgement",
    "KernelCost",
    "Mark",
    "Measurement",
    "Metric",
    "Model",
    "Needs",
    "Offer",
    "Operator",
    "Placement",
    "Plan",
    "Recording",
    "Refusal",
    "Report",
    "Row",
    "Signature",
    "Source",
    "Spread",
    "Stage",
    "StageCost",
    "State",
    "Step",
    "Target",
    "TensorSpec",
    "TorchGraph",
    "Trace",
    "Tradeoff",
    "Variant",
    "Verdict",
    "bytes_of",
    "unknown",
]
