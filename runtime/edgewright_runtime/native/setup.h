/* What `engine device setup` and `engine doctor` ask of the runner itself, in place of a Python on the device. */
#pragma once

#include <string>

namespace edgewright {

/* Print one line of JSON: the C library, and the onnxruntime that models would run with, or why there is none. */
int probe();

/* Make `folder`/site lead to `folder`/sites/`name` in one step, and remove what else is in sites; without a name the
 * link is removed. Holds the device's lock meanwhile. Returns: 0; 75 when another client holds it; 1 on failure. */
int place(const std::string &folder, const std::string &name);

}  // namespace edgewright
