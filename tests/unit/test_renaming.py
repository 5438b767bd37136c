"""The node of a graph behind a runtime's own names: onnxruntime's, run here, on a graph that it fuses."""

from __future__ import annotations

import numpy as np
import onnx
import onnx.parser
import pytest

from edgewright.reporting.renaming import original, originals
from edgewright_runtime.ort_session import OrtSession

NET = """
<ir_version: 8, opset_import: ["" : 17]>
net (float[1, 8, 8, 8] x) => (float[1, 5] y)
{
  [conv] c = Conv <pads = [1, 1, 1, 1]> (x, w)
  [relu] r = Relu (c)
  [mean] m = ReduceMean <axes = [2, 3], keepdims = 0> (r)
  [product] y = MatMul (m, v)
}
"""


@pytest.fixture
def net() -> onnx.ModelProto:
    proto = onnx.parser.parse_model(NET)
    rng = np.random.default_rng(0)
    for name, shape in (("w", (8, 8, 3, 3)), ("v", (8, 5))):
        values = rng.standard_normal(shape).astype(np.float32)
        proto.graph.initializer.append(onnx.numpy_helper.from_array(values, name))
    return proto


def test_nodes_that_ran_are_found_in_the_graph(net, tmp_path):
    path = tmp_path / "net.onnx"
    onnx.save(net, path)
    ran = OrtSession(str(path), {}).profile({"x": np.ones((1, 8, 8, 8), np.float32)}, 2)
    found = {each["operator"]: original(each["node"], each["operator"], originals(net)) for each in ran}
    assert found["Conv"] == "conv", "the runtime calls it by the output of the Relu that it took in"
    assert found["ReduceMean"] == "mean"
    assert found.get("MatMul", found.get("Gemm")) == "product"


def test_what_is_no_node_of_the_graph_has_no_name(net):
    known = originals(net)
    assert original("ReorderOutput", "ReorderOutput", known) == ""
    assert original("relu_token_3", "QLinearConv", known) == "", "another operator's name proves nothing"
    assert original("conv_token_3", "QLinearConv", known) == "conv"
