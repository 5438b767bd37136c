/* What a device is like at this moment: whatever may differ from one measurement to the next, or while one runs. */
#pragma once

#include <string>

#include "json.h"

namespace edgewright {

/* Of the machine whose files lie below `root`, as edgewright_runtime.circumstances tells it. */
Json::Members conditions(const std::string &root = "");

}  // namespace edgewright
