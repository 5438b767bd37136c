"""The operator `edgewright::Kernel` of ONNX Runtime: its C source, the header that needs, and how it is compiled."""
