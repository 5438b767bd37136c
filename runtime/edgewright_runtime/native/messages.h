/* The messages of the protocol (docs/agent.md): one line of JSON each. */
#pragma once

#include <string>

#include "errors.h"
#include "json.h"

namespace edgewright {

constexpr int PROTOCOL = 1;

extern const Names OPERATIONS;

/* The message in a line. Raises: DeviceError when it holds none. */
Json decode(const std::string &line);

/* The answer to a request that went well, and to one that failed. */
std::string answer(const Json &request, Json result);
std::string failure(const Json &request, const std::string &kind, const std::string &message);

}  // namespace edgewright
