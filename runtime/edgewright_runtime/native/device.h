/* Finds out what this device is. */
#pragma once

#include <string>

#include "json.h"

namespace edgewright {

/* The fields of edgewright.types.Device; `python` is empty here. Looks for ONNX Runtime. */
Json find_device();

/* The C library and its version, as far as it tells. */
std::string libc();

/* What the costs of stages are kept under; asked once. */
const std::string &fingerprint();

}  // namespace edgewright
