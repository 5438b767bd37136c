"""Templates of kernels: each makes a function of a shape and a tile, beside the NumPy that says what it computes."""
