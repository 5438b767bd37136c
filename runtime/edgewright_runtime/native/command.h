/* Programs of the device that print something. */
#pragma once

#include <string>

#include "errors.h"

namespace edgewright {

/* Runs a program and takes what it prints, as far as 16 kB; it may take two seconds.
 * Returns: 0, or the number of the error: ETIMEDOUT, EIO where it fails, or why it does not start. */
int command_output(const Names &argv, std::string &said);

}  // namespace edgewright
