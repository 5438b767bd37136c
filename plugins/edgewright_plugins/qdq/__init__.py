"""Integer graphs: what every method that quantises shares, from calibration to QuantizeLinear and DequantizeLinear."""
