/* The few statistics that are needed where the numbers arise; all others are the host's. */
#pragma once

#include <vector>

namespace edgewright {

double median(std::vector<double> values);
double mean(const std::vector<double> &values);

/* The value that a share of `values` is at or below: the next one up where it falls between two. */
double quantile(std::vector<double> values, double share);

}  // namespace edgewright
