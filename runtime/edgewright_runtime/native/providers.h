/* The execution providers of ONNX Runtime, by the names that plans have for them. */
#pragma once

#include <string>

#include "ort.h"

namespace edgewright {

extern const char *const CPU;

/* Have a session run on `provider`. Raises: InputError when this onnxruntime lacks it or it cannot start, unless
 * `allow_fallback`, which leaves the CPU. */
void add_provider(const Ort &ort, OrtSessionOptions *settings, const std::string &provider, bool allow_fallback);

}  // namespace edgewright
