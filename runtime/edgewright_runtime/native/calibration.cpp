#include "calibration.h"

#include <sys/resource.h>

#include <algorithm>
#include <random>

#include "clock.h"

namespace edgewright {

constexpr size_t least_runs = 10;
constexpr double stolen_ns = 20000; /* a thread that did not wait loses less than that to the clock's own grain */

/* What the system says about this thread at one moment: times it was put aside, times it waited, clocks in ns. */
struct Witness {
  long put_aside, waited;
  int64_t wall, worked;
};

static Witness witness() {
  struct rusage usage;
  ::getrusage(RUSAGE_THREAD, &usage);
  return {usage.ru_nivcsw, usage.ru_nvcsw, now_ns(), read_clock(CLOCK_THREAD_CPUTIME_ID)};
}

/* Whether the processor was taken away in between: by the system, which counts it, or by the machine below it, which
 * shows as time that passed while a thread that never waited did not work. */
static bool interrupted(const Witness &before, const Witness &after) {
  if (after.put_aside > before.put_aside) return true;
  auto passed = static_cast<double>(after.wall - before.wall), worked = static_cast<double>(after.worked - before.worked);
  return after.waited == before.waited && passed - worked > std::max(stolen_ns, 0.05 * passed);
}

struct Run {
  std::vector<int64_t> taken;
  bool calm;
};

/* Milliseconds of a stage in calm runs; in all runs where hardly any was calm. */
static std::vector<double> of_stage(size_t number, const std::vector<Run> &runs) {
  std::vector<double> all, calm;
  for (const Run &run : runs) {
    if (run.taken.size() <= number) continue;
    all.push_back(static_cast<double>(run.taken[number]) / 1e6);
    if (run.calm) calm.push_back(all.back());
  }
  return calm.size() >= least_runs ? calm : all;
}

Costs calibrate(const RunTo &run, const Names &stages, double seconds) {
  for (int i = 0; i < warm_runs; i++) run(stages.size() - 1);
  std::mt19937_64 random(0);
  std::vector<Run> runs;
  size_t whole = 0;
  double give_up = static_cast<double>(now_ns()) + seconds * 1e9;
  while (static_cast<double>(now_ns()) < give_up || whole < least_runs) {
    size_t depth = random() % stages.size();
    Witness before = witness();
    std::vector<int64_t> taken = run(depth);
    runs.push_back({taken, !interrupted(before, witness())});
    whole += taken.size() == stages.size();
  }
  Costs costs;
  for (size_t number = 0; number < stages.size(); number++)
    costs.push_back(stage_cost(stages[number], of_stage(number, runs)));
  return costs;
}

}  // namespace edgewright
