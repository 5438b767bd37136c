#include "loaded.h"

#include <algorithm>

#include "calibration.h"
#include "clock.h"
#include "loading.h"

namespace edgewright {

constexpr double calibration_seconds = 2;

static void check_state(const Bundle &bundle) {
  const Names &outputs = bundle.variant.stages.back().outputs;
  for (const State &link : bundle.signature.state)
    if (std::find(outputs.begin(), outputs.end(), link.output) == outputs.end())
      throw BundleError(bundle.path + ": the state " + quoted(link.input) + " comes from " + quoted(link.output) +
                        ", which the last stage does not give");
}

Loaded::Loaded(const std::string &path, const LoadOptions &options)
    : bundle_(open_bundle(path, options.verify)), placements_(find_placements(bundle_)) {
  std::vector<std::shared_ptr<Session>> sessions;
  int threads = 1;
  for (Placement &placement : placements_) {
    if (options.threads) placement.options.set("threads", *options.threads);
    if (options.allow_fallback) placement.options.set("allow_fallback", *options.allow_fallback);
    sessions.push_back(open_session(bundle_, placement, options.foreign));
    threads = std::max(threads, placement.threads());
  }
  pieces_ = make_pieces(bundle_, sessions);
  check_state(bundle_);
  ports_ = make_ports(bundle_.signature.fed());
  for (const TensorSpec &spec : bundle_.signature.inputs)
    for (const State &link : bundle_.signature.state)
      if (link.input == spec.name) recurrent_.push_back(spec);
  policy_ = std::make_unique<Policy>(bundle_, threads);
}

/* ------------------------------------------------------------------ one run */

Result Loaded::run(const Arrays &inputs, const RunOptions &options) {
  int64_t start = now_ns();
  if (!options.deadline_ms && !options.through) return answer(pieces_, inputs, start, policy_->whole());
  if (options.deadline_ms && !policy_->ready) {
    get_ready();
    start = now_ns();
  }
  policy_->check();
  check_deadline(options.deadline_ms);
  return answer(pieces_, inputs, start, policy_->limits(start, options.deadline_ms, options.through));
}

Result Loaded::answer(const std::vector<Piece> &pieces, const Arrays &inputs, int64_t start, const Limits &limits) {
  Arrays fed = values(inputs);
  const Array *first = ports_.empty() ? nullptr : find(fed, ports_[0].spec.name);
  int64_t rows = first && !first->shape.empty() ? first->shape[0] : 1;
  Result result;
  if (!dynamic()) { /* nothing to decide, so no time goes to deciding */
    result.outputs = pieces[0].outputs(pieces[0].run(fed, {}));
    remember(result.outputs);
    result.exits.assign(static_cast<size_t>(rows), 0);
    result.spent = now_ns() - start;
    result.stages = {result.spent};
    return result;
  }
  Passed passed = flow(pieces, fed, rows, limits);
  remember(passed.outputs);
  result.outputs = std::move(passed.outputs);
  result.exits = std::move(passed.exits);
  int64_t begin = start;
  for (int64_t end : passed.ends) {
    result.stages.push_back(end - begin);
    begin = end;
  }
  result.spent = now_ns() - start;
  return result;
}

std::vector<Arrays> Loaded::explore(const Arrays &inputs) {
  Arrays fed = values(inputs);
  std::vector<Array> carried;
  std::vector<Arrays> found;
  for (const Piece &piece : pieces_) {
    std::vector<Array> results = piece.run(fed, carried);
    carried = piece.carry(results);
    found.push_back(piece.outputs(results));
    if (piece.stage.gate) found.back().emplace_back(piece.stage.gate->score, results.back());
  }
  return found;
}

std::vector<Array> Loaded::graph_feeds(const Arrays &inputs, size_t stage) {
  Arrays fed = values(inputs);
  std::vector<Array> carried;
  for (size_t before = 0; before < stage; before++) carried = pieces_[before].carry(pieces_[before].run(fed, carried));
  return pieces_[stage].feeds(fed, carried);
}

/* What flows into the stages, checked. */
Arrays Loaded::values(const Arrays &inputs) {
  check_feeds(ports_, inputs);
  return recurrent_.empty() ? inputs : with_state(inputs);
}

static std::string shown(const Sizes &sizes) {
  Names parts;
  for (const auto &[name, size] : sizes) parts.push_back(quoted(name) + ": " + std::to_string(size));
  return "{" + joined(parts) + "}";
}

Arrays Loaded::with_state(const Arrays &inputs) {
  Sizes given = sizes_of(ports_, inputs), free;
  for (const TensorSpec &spec : recurrent_)
    for (const Dim &dim : spec.shape)
      if (dim.free && given.count(dim.name)) free[dim.name] = given[dim.name];
  if (!state_) {
    state_.emplace();
    for (const TensorSpec &spec : recurrent_) state_->emplace_back(spec.name, zeros_of(spec, free));
    state_sizes_ = free;
  } else if (free != state_sizes_) {
    throw InputError("the recurrent state was kept for " + shown(state_sizes_) + ", now fed " + shown(free) +
                     "; call reset() first");
  }
  Arrays all = inputs;
  all.insert(all.end(), state_->begin(), state_->end());
  return all;
}

/* Keeps the recurrent outputs for the next run. */
void Loaded::remember(const Arrays &outputs) {
  if (recurrent_.empty()) return;
  Arrays state;
  for (const State &link : bundle_.signature.state) state.emplace_back(link.input, *find(outputs, link.output));
  state_ = std::move(state);
}

/* ------------------------------------------------------------------ what stages take */

/* While it lives, the recurrent state is another one than the caller's. */
class OwnState {
 public:
  OwnState(std::optional<Arrays> &state, Sizes &sizes) : state_(state), sizes_(sizes), kept_(state), kept_sizes_(sizes) {
    state_.reset();
  }
  ~OwnState() { state_ = kept_, sizes_ = kept_sizes_; }
  OwnState(const OwnState &) = delete;
  OwnState &operator=(const OwnState &) = delete;

 private:
  std::optional<Arrays> &state_;
  Sizes &sizes_;
  std::optional<Arrays> kept_;
  Sizes kept_sizes_;
};

void Loaded::get_ready() {
  if (policy_->ready) return;
  policy_->check();
  if (pieces_.size() > 1 && policy_->costs().empty()) calibrate(calibration_seconds);
  OwnState own(state_, state_sizes_);
  Stream stream = open_stream(bundle_, read_example(bundle_));
  for (int i = 0; i < warm_runs; i++) answer(pieces_, stream.next(), now_ns(), policy_->whole());
  policy_->ready = true;
}

Costs Loaded::calibrate(double seconds) {
  policy_->check(false);
  std::vector<Piece> ajar = pieces_; /* every gate decides, and lets everything go on */
  Names stages;
  for (Piece &piece : ajar) {
    if (piece.stage.gate) piece.threshold = std::numeric_limits<float>::infinity();
    stages.push_back(piece.stage.name);
  }
  OwnState own(state_, state_sizes_);
  Stream stream = open_stream(bundle_, read_example(bundle_));
  auto to_depth = [&](size_t depth) { /* the way back is the last stage's */
    Limits limits;
    limits.through = static_cast<int64_t>(depth);
    Arrays fed = stream.next();
    int64_t start = now_ns();
    std::vector<int64_t> taken = answer(ajar, fed, start, limits).stages;
    taken.back() = now_ns() - start;
    for (size_t before = 0; before + 1 < taken.size(); before++) taken.back() -= taken[before];
    return taken;
  };
  Costs costs = edgewright::calibrate(to_depth, stages, seconds);
  policy_->learn(costs);
  return costs;
}

}  // namespace edgewright
