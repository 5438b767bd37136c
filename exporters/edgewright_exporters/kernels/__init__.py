"""Templates of kernels: each turns a shape and a tile into one function, beside the NumPy that says what it computes."""
