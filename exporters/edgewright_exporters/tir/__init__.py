"""From loop nests to a shared object: instruction sets, the compiler, the linker and whether they work here."""
