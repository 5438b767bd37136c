#include "costs.h"

#include <cmath>

#include "device.h"
#include "files.h"
#include "statistics.h"

namespace edgewright {

constexpr size_t enough = 1000; /* runs from which on the one in a thousand is read off, not estimated */

Json StageCost::entry() const {
  return Json::Members{{"stage", stage}, {"median_ms", median}, {"mean_ms", mean}, {"high_ms", high}, {"n", n}};
}

/* With few runs the excess over the median that one in 100 has is stretched, as if it fell off exponentially. */
static double high_ms(const std::vector<double> &taken) {
  if (taken.size() >= enough) return quantile(taken, 1 - 1.0 / enough);
  double middle = median(taken), in_hundred = quantile(taken, 0.99);
  return middle + (in_hundred - middle) * std::log(enough) / std::log(100);
}

StageCost stage_cost(const std::string &stage, const std::vector<double> &taken) {
  return {stage, median(taken), mean(taken), high_ms(taken), static_cast<int64_t>(taken.size())};
}

/* Costs from their JSON form; empty unless they are those of the bundle's stages, in order. */
static Costs parse_costs(const Json &entries, const Bundle &bundle) {
  Costs costs;
  const std::vector<Stage> &stages = bundle.variant.stages;
  try {
    for (const Json &entry : entries.items())
      costs.push_back({entry.at("stage").text(), entry.at("median_ms").real(), entry.at("mean_ms").real(),
                       entry.at("high_ms").real(), entry.at("n").whole()});
  } catch (const JsonError &) {
    return {};
  }
  bool fit = costs.size() == stages.size();
  for (size_t i = 0; fit && i < stages.size(); i++) fit = costs[i].stage == stages[i].name;
  return fit ? costs : Costs();
}

Costs listed_costs(const Bundle &bundle, int threads) {
  if (bundle.costs.kind() != Json::Kind::array) return {};
  for (const Json &entry : bundle.costs.items()) {
    const Json &device = entry.get("device"), &variant = entry.get("variant"), &count = entry.get("threads");
    if (device.is_text() && device.text() == fingerprint() && variant.is_text() &&
        variant.text() == bundle.variant.name && count.shown() == std::to_string(threads))
      return parse_costs(entry.get("stages"), bundle);
  }
  return {};
}

/* Where the user's cache keeps them; empty where the user has no place for it. */
static std::string cost_place(const Bundle &bundle, int threads) {
  std::string base = setting("XDG_CACHE_HOME"), home = setting("HOME");
  if (base.empty() && home.empty()) return "";
  return (base.empty() ? home + "/.cache" : base) + "/edgewright/costs/" + bundle.digest + "-" + fingerprint() + "-" +
         std::to_string(threads) + ".json";
}

Costs read_costs(const Bundle &bundle, int threads) {
  std::string text = read_or_empty(cost_place(bundle, threads));
  try {
    return text.empty() ? Costs() : parse_costs(Json::parse(text), bundle);
  } catch (const JsonError &) {
    return {};
  }
}

void keep_costs(const Bundle &bundle, int threads, const Costs &costs) {
  std::string place = cost_place(bundle, threads);
  if (!place.empty()) static_cast<void>(write_file(place, entries_of(costs).compact()));
}

Json entries_of(const Costs &costs) {
  Json::Items entries;
  for (const StageCost &cost : costs) entries.push_back(cost.entry());
  return entries;
}

}  // namespace edgewright
