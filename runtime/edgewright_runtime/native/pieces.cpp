/* Puts stages and their sessions together, and refuses what could not run. */
#include <algorithm>

#include "flow.h"

namespace edgewright {

static void check_gates(const Variant &variant, const Signature &signature) {
  if (variant.gated() && !signature.state.empty())
    throw BundleError("the model keeps " + quoted(signature.state[0].input) + " from run to run, so no row may leave "
                      "before the end; deploy it without a method of early exit");
  const Stage &last = variant.stages.back();
  for (const Stage &stage : variant.stages) {
    if (!stage.exits.empty() && variant.stages.size() > 1)
      throw BundleError("the stage " + quoted(stage.name) +
                        " decides inside its graph, so it has to be the only stage");
    if (stage.gate && &stage == &last)
      throw BundleError("the last stage " + quoted(stage.name) + " has a gate, but nothing comes after it");
    if (stage.gate && stage.outputs != last.outputs)
      throw BundleError("rows may leave at the stage " + quoted(stage.name) + ", but it gives " +
                        (stage.outputs.empty() ? "nothing" : joined(stage.outputs)) + " where the last one gives " +
                        joined(last.outputs));
  }
}

static void check_arity(const Stage &stage, const Session &session, size_t carried) {
  size_t takes = stage.inputs.size() + carried, gives = stage.returns();
  if (session.inputs().size() != takes || session.outputs().size() != gives)
    throw BundleError("the stage " + quoted(stage.name) + " should take " + std::to_string(takes) +
                      " tensors and give " + std::to_string(gives) + ", but its graph takes " +
                      std::to_string(session.inputs().size()) + " and gives " +
                      std::to_string(session.outputs().size()));
}

static void check_sources(const Stage &stage, const Signature &signature) {
  for (const std::string &name : stage.inputs) {
    bool known = std::any_of(signature.inputs.begin(), signature.inputs.end(),
                             [&](const TensorSpec &spec) { return spec.name == name; });
    if (!known)
      throw BundleError("the stage " + quoted(stage.name) + " takes " + quoted(name) + ", which the model does not");
  }
}

/* Without doubles, in the order in which they are first needed. */
static Names needed_from(const std::vector<Stage> &stages, size_t number) {
  Names needs;
  for (size_t later = number; later < stages.size(); later++)
    for (const std::string &name : stages[later].inputs)
      if (std::find(needs.begin(), needs.end(), name) == needs.end()) needs.push_back(name);
  return needs;
}

std::vector<Piece> make_pieces(const Bundle &bundle, const std::vector<std::shared_ptr<Session>> &sessions) {
  const std::vector<Stage> &stages = bundle.variant.stages;
  check_gates(bundle.variant, bundle.signature);
  std::vector<Piece> pieces;
  for (size_t number = 0; number < stages.size(); number++) {
    const Stage &stage = stages[number];
    check_arity(stage, *sessions[number], number ? stages[number - 1].carry.size() : 0);
    check_sources(stage, bundle.signature);
    bool free = std::all_of(stages.begin() + static_cast<std::ptrdiff_t>(number), stages.end(),
                            [](const Stage &later) { return later.free_rows; });
    std::optional<float> threshold = stage.gate ? stage.gate->threshold : std::nullopt;
    pieces.push_back({stage, sessions[number], needed_from(stages, number), free, threshold});
  }
  return pieces;
}

}  // namespace edgewright
