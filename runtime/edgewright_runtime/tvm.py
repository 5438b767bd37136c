"""The runtime `tvm`: models that were compiled whole, on TVM's runtime libraries; it needs no compiler there."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Optional

from edgewright.types import Artifact, Device, Refusal, Target

if TYPE_CHECKING:
    from edgewright.protocols import Runtime
    from edgewright_runtime.tvm_session import TvmSession

CPU = "CPU"
INSTALL = "pip install 'edgewright[tvm]'"


class Tvm:
    """TVM's virtual machine on the processor, on one thread.

    Options: `provider` (CPU) and `threads` (1).
    """

    name = "tvm"
    formats: tuple[str, ...] = ("tvm",)

    def probe(self, device: Device) -> Optional[Refusal]:
        """Whether the device has TVM's runtime. Which version a model needs is checked when it is opened."""
        if "apache-tvm" in device.versions:
            return None
        return Refusal(f"the device ({device.cpu}) has no runtime of TVM; install it there with {INSTALL}")

    def options(self, artifact: Artifact, target: Target) -> Sequence[Mapping[str, Any]]:
        """The one way: what could be chosen was chosen when the model was compiled."""
        return [{"provider": CPU, "threads": 1}]

    def prepare(self) -> None:
        """Import TVM. Raises: InputError when it does not work here."""
        from edgewright_runtime.tvm_adapter import load_libraries

        load_libraries()

    def open(self, path: str, options: Mapping[str, Any]) -> TvmSession:
        """Load one compiled stage. Raises: InputError."""
        from edgewright_runtime.tvm_session import TvmSession

        return TvmSession(path, options)


TVM = Tvm()


def edgewright_runtimes() -> Iterable[Runtime]:
    """What this module offers."""
    return (TVM,)
