"""Which ONNX operators runtimes treat alike: what costs nothing, what multiplies, what is folded into others."""

VIEWS = {"Identity", "Reshape", "Flatten", "Squeeze", "Unsqueeze", "Dropout", "Shape", "Size"}
"""Operators that runtimes answer without touching the data."""

MOVED = VIEWS | {"Transpose"}
"""Operators whose result is as wide as what they read."""

CONVOLUTIONS = {"Conv", "ConvInteger", "ConvTranspose"}
PRODUCTS = {"MatMul", "MatMulInteger"}
RECURRENT = {"RNN", "GRU", "LSTM"}
MULTIPLIES = CONVOLUTIONS | PRODUCTS | RECURRENT | {"Gemm", "Einsum"}
OPAQUE = {"Loop", "Scan", "Attention", "MultiHeadAttention", "GroupQueryAttention", "MatMulNBits", "DeformConv"}
"""Operators whose work cannot be read from shapes alone; they are reported, never counted as nothing."""

WIDE = {
    "LayerNormalization", "InstanceNormalization", "GroupNormalization", "Gelu", "Swish", "Erf", "Exp", "Log", "Sqrt",
    "Div", "Pow", "Reciprocal", "Softplus", "Mish", "ReduceMean", "ReduceSum",
}  # fmt: skip
"""Operators that no runtime has integer kernels for: between quantised tensors they compute in float all the same."""

FUSED = {"BatchNormalization", "Relu", "LeakyRelu", "PRelu", "Clip", "Sigmoid", "Tanh", "HardSigmoid", "HardSwish"}
"""Operators that runtimes fold into the product whose result they take, when nothing else takes it."""

SELECT = {"Gather", "GatherElements", "GatherND", "Slice"}
"""Operators that read no more of their first input than they write."""

PARAMETRIC = {"Resize", "Pad", "Slice", "Clip", "Expand", "Tile", "QuantizeLinear", "Split", "ReduceMean"}
"""Operators whose inputs after the first are parameters, not data."""
