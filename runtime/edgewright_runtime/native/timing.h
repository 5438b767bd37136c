/* Times runs inside the process that makes them, in raw nanoseconds; every statistic is the host's. */
#pragma once

#include <cstdint>
#include <functional>
#include <utility>
#include <vector>

#include "json.h"

namespace edgewright {

/* Makes one run; the nanoseconds it took. */
using Once = std::function<int64_t()>;
using Times = std::vector<int64_t>;

/* Run at least so long and so often, then on until the rolling median settles, but not for ever. */
struct WarmUp {
  double least_ns = 200e6, least_runs = 10, most_ns = 2e9, tolerance = 0.02;
  int64_t window = 10;
};

/* From what the host says otherwise. Raises: InputError for a rule that there is none of. */
WarmUp warm_up_rules(const Json &rules);

/* The nanoseconds of each warm-up run, and whether the median of the last `window` runs settled. */
std::pair<Times, bool> warm_up(const Once &once, const WarmUp &rules);

/* Run for so long: caches and clocks come back after another process's turn. */
void settle(const Once &once, double ns);

/* The nanoseconds of each run; both `least_runs` and `least_ns` are reached. */
Times time_block(const Once &once, double least_runs, double least_ns);

/* Look at the clock for so long; the nanoseconds it really took, of which the rest is the machine's doing. */
int64_t spin(double ns);

}  // namespace edgewright
