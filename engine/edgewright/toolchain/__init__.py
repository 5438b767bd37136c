"""What building for a device needs on this host: compilers, headers, an older C library."""
