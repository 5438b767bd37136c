/* Runs a set of examples through a loaded bundle, block by block, and stacks what comes out. */
#pragma once

#include <vector>

#include "loaded.h"

namespace edgewright {

/* What examples were answered, stacked: outputs by name, exits of each, nanoseconds of each run. */
struct Answers {
  Arrays outputs;
  std::vector<int64_t> exits;
  std::vector<int64_t> spent;
};

/* The answer to every example, stacked on axis 0; recurrent states are left out, and start from zero in each block.
 * Blocks have `batch` examples where the graph leaves it open, else its own batch, the last one filled up.
 * Raises: InputError when arrays differ in length, or an output has no row per example. */
Answers infer(Loaded &loaded, const Arrays &arrays, int64_t batch, const RunOptions &options);

/* What every stage answers to every example when none leaves: outputs and score by name, stacked on axis 0. */
std::vector<Arrays> explore(Loaded &loaded, const Arrays &arrays, int64_t batch);

}  // namespace edgewright
