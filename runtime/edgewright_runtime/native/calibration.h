/* Measures what each stage of a chain takes, in runs that end at depths drawn at random, as real inputs end them. */
#pragma once

#include <functional>

#include "costs.h"

namespace edgewright {

constexpr int warm_runs = 5;

/* A run that ends at the stage of that number; returns what each stage took, in ns. */
using RunTo = std::function<std::vector<int64_t>(size_t)>;

/* The cost of each of `stages`, measured for so long. Runs during which the system gave the processor to something
 * else are left out. */
Costs calibrate(const RunTo &run, const Names &stages, double seconds);

}  // namespace edgewright
