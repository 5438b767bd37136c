"""What plugins satisfy. Structural: a plugin needs no base class, only these members.

`Params` is a frozen dataclass; the command line, the recipe file, `engine plugins` and the documentation
read names, types, defaults and `field(metadata={"help": ..., "low": ..., "high": ..., "choices": ...})` from it.
A parameter whose metadata say `"nodes": True` holds names of nodes; each stage of a model is given its own.
"""

from edgewright.protocols.attacks import Attack, Probe
from edgewright.protocols.context import Context, OperatorTime
from edgewright.protocols.devices import (
    Calibrated,
    Connection,
    HostMeter,
    Itemising,
    Link,
    Measurable,
    Meter,
    Modelling,
    PowerLog,
    Predictor,
    Process,
    PythonMeter,
    Recorder,
    Sampler,
    Spotted,
)
from edgewright.protocols.formats import Exporter, GraphStore, Loader, LoadRequest, Requirement
from edgewright.protocols.kernels import Kernel, Trial
from edgewright.protocols.renderers import PageRenderer, Renderer
from edgewright.protocols.runtimes import Runtime, Session
from edgewright.protocols.transforms import NoParams, OnnxTransform, TorchTransform

__all__ = [
    "Attack",
    "Calibrated",
    "Connection",
    "Context",
    "Exporter",
    "GraphStore",
    "HostMeter",
    "Itemising",
    "Kernel",
    "Link",
    "LoadRequest",
    "Loader",
    "Measurable",
    "Meter",
    "Modelling",
    "NoParams",
    "OnnxTransform",
    "OperatorTime",
    "PageRenderer",
    "PowerLog",
    "Predictor",
    "Probe",
    "Process",
    "PythonMeter",
    "Recorder",
    "Renderer",
    "Requirement",
    "Runtime",
    "Sampler",
    "Session",
    "Spotted",
    "TorchTransform",
    "Trial",
]
