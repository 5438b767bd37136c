"""Predicts latency and energy of ONNX graphs kernel by kernel, with coefficients that were fitted to measurements."""
