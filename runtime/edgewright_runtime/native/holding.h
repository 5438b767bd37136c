/* A device is one client's at a time: the agent holds a lock there for as long as it lives. */
#pragma once

#include <string>

namespace edgewright {

/* The locked file, with the owner's name in it for those who come too late; the system unlocks it when we end.
 * Raises: DeviceError when another holds it. */
int hold(const std::string &path, const std::string &owner);

}  // namespace edgewright
