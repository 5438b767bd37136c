/* What the stages of a bundle take on this device: read from its manifest or the user's cache, and kept there. */
#pragma once

#include <string>
#include <vector>

#include "bundle.h"

namespace edgewright {

/* What one stage takes in the running chain, in ms; `high` is what all but one in a thousand of `n` runs stayed below. */
struct StageCost {
  std::string stage;
  double median, mean, high;
  int64_t n;

  Json entry() const;
};

using Costs = std::vector<StageCost>;

/* What the times of a stage's runs say about it. */
StageCost stage_cost(const std::string &stage, const std::vector<double> &taken_ms);

/* The costs that the manifest lists for this device and so many threads; empty without. */
Costs listed_costs(const Bundle &bundle, int threads);

/* What an earlier process kept, and keeping it for the next one; a place that cannot be written means measuring again. */
Costs read_costs(const Bundle &bundle, int threads);
void keep_costs(const Bundle &bundle, int threads, const Costs &costs);

Json entries_of(const Costs &costs);

}  // namespace edgewright
