/* What this processor is and can do, and whether it can run the machine code of a bundle. */
#pragma once

#include <string>

#include "bundle.h"

namespace edgewright {

std::string read_cpuinfo();

/* The value of the first line `name : value` whose name is among `names`; empty where there is none. */
std::string cpuinfo_field(const std::string &cpuinfo, const Names &names);

/* The instruction set of this process, as Linux calls it. */
std::string find_isa();

/* The instruction sets it has that change how fast a kernel can be, sorted; empty where it does not say. */
Names find_features(const std::string &isa, const std::string &cpuinfo);

/* Whether onnxruntime's usual kernels for signed weights are exact on x86 with these: see edgewright/machine.py. */
bool products_are_exact(const Names &features);

/* Find out before a library is opened whether this processor can run it. Raises: BundleError with what it lacks. */
void check_processor(const Companion &library);

}  // namespace edgewright
