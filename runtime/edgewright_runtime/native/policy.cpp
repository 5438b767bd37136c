#include "policy.h"

namespace edgewright {

constexpr double leeway = 1.1; /* room beside what 999 of 1000 runs stay below: of few runs that is nearly the slowest */

Policy::Policy(const Bundle &bundle, int threads) : bundle_(bundle), threads_(threads) {
  whole_.through = static_cast<int64_t>(bundle.variant.stages.size()) - 1;
}

const Costs &Policy::costs() {
  if (costs_.empty()) {
    Costs listed = listed_costs(bundle_, threads_);
    take(listed.empty() ? read_costs(bundle_, threads_) : listed);
  }
  return costs_;
}

void Policy::learn(const Costs &costs) {
  take(costs);
  keep_costs(bundle_, threads_, costs);
}

Limits Policy::limits(int64_t start, std::optional<double> deadline_ms, std::optional<int64_t> through) const {
  if (through && (*through < 0 || *through > whole_.through))
    throw InputError("there is no stage " + std::to_string(*through) + " to stop at; allowed: 0 to " +
                     std::to_string(whole_.through));
  Limits limits;
  limits.through = through.value_or(whole_.through);
  if (!deadline_ms) return limits;
  limits.start = static_cast<double>(start);
  limits.by = limits.start + *deadline_ms * 1e6;
  limits.highs = highs_;
  limits.usual = usual_;
  return limits;
}

/* The state that only the end of a run renews; empty when there is none, or only one stage. */
static std::string recurrent(const Bundle &bundle) {
  const auto &state = bundle.signature.state;
  bool kept = !state.empty() && bundle.variant.stages.size() > 1;
  return kept ? "it keeps " + quoted(state[0].input) + " from run to run" : "";
}

/* The stage at which a run cannot stop, because nothing comes out; empty when there is none. */
static std::string silent(const Bundle &bundle) {
  const std::vector<Stage> &stages = bundle.variant.stages;
  for (const Stage &stage : stages)
    if (stage.outputs != stages.back().outputs) return "the stage " + quoted(stage.name) + " gives no answer";
  return "";
}

void Policy::check(bool answering) const {
  std::string reason = recurrent(bundle_);
  if (reason.empty() && answering) reason = silent(bundle_);
  if (!reason.empty())
    throw InputError("the model has to run to its end, because " + reason +
                     "; leave out the deadline and the last stage");
}

void Policy::take(const Costs &costs) {
  costs_ = costs;
  highs_.clear(), usual_.clear();
  double together = 0;
  for (const StageCost &cost : costs) {
    highs_.push_back(leeway * cost.high * 1e6);
    usual_.push_back(together += cost.median * 1e6);
  }
}

void check_deadline(std::optional<double> deadline_ms) {
  if (deadline_ms && !(*deadline_ms >= 0))
    throw InputError("a deadline of " + shortest(*deadline_ms) + " ms cannot be met; give 0 or more");
}

}  // namespace edgewright
