"""Joins the stages of a chain in ONNX: one stage merged into the next, or the whole chain as one graph of nested `If`s.

As onnxkit it imports a framework; import it inside functions only.
"""

from __future__ import annotations

from edgewright.onnxchain.merging import dropped, merge
from edgewright.onnxchain.nesting import nested

__all__ = ["dropped", "merge", "nested"]
