#include "timing.h"

#include <cmath>

#include "clock.h"
#include "errors.h"
#include "statistics.h"

namespace edgewright {

static double since(int64_t start) { return static_cast<double>(now_ns() - start); }

WarmUp warm_up_rules(const Json &asked) {
  WarmUp rules;
  if (asked.is_null()) return rules;
  const std::pair<const char *, double *> known[] = {{"least_ns", &rules.least_ns},
                                                     {"least_runs", &rules.least_runs},
                                                     {"most_ns", &rules.most_ns},
                                                     {"tolerance", &rules.tolerance}};
  for (const auto &[name, value] : asked.members()) {
    bool found = name == "window";
    if (found) rules.window = value.whole();
    for (const auto &[rule, place] : known)
      if (name == rule) *place = value.real(), found = true;
    if (!found)
      throw InputError("there is no rule " + quoted(name) + " for warming up; " +
                       suggest(name, {"least_ns", "least_runs", "most_ns", "tolerance", "window"}));
  }
  if (rules.window < 1) throw InputError("a window of " + std::to_string(rules.window) + " runs; allowed: 1 and more");
  return rules;
}

static double median_of(const Times &taken, size_t from, size_t count) {
  auto begin = taken.begin() + static_cast<std::ptrdiff_t>(from);
  return median(std::vector<double>(begin, begin + static_cast<std::ptrdiff_t>(count)));
}

static bool settled(const Times &taken, const WarmUp &rules) {
  auto window = static_cast<size_t>(rules.window);
  if (taken.size() / 2 < window) return false;
  double last = median_of(taken, taken.size() - window, window);
  double before = median_of(taken, taken.size() - 2 * window, window);
  return std::fabs(last - before) <= rules.tolerance * before;
}

std::pair<Times, bool> warm_up(const Once &once, const WarmUp &rules) {
  Times taken;
  for (int64_t start = now_ns();;) {
    taken.push_back(once());
    double spent = since(start);
    if (spent < rules.least_ns || static_cast<double>(taken.size()) < rules.least_runs) continue;
    if (settled(taken, rules)) return {taken, true};
    if (spent >= rules.most_ns) return {taken, false};
  }
}

void settle(const Once &once, double ns) {
  for (int64_t start = now_ns(); since(start) < ns;) once();
}

Times time_block(const Once &once, double least_runs, double least_ns) {
  Times taken;
  for (int64_t start = now_ns(); static_cast<double>(taken.size()) < least_runs || since(start) < least_ns;)
    taken.push_back(once());
  return taken;
}

int64_t spin(double ns) {
  int64_t start = now_ns();
  while (since(start) < ns) {
  }
  return now_ns() - start;
}

}  // namespace edgewright
