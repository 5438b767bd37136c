/* Loads a bundle and runs it in this process: stages in order, to a deadline if there is one, recurrent state kept. */
#pragma once

#include <memory>
#include <optional>
#include <vector>

#include "bundle.h"
#include "examples.h"
#include "feeds.h"
#include "flow.h"
#include "policy.h"

namespace edgewright {

/* What a model answered: `exits` the stage at which each row left, or the number of its exit in a graph that decides
 * inside; `spent` from the call to the answer, `stages` what each stage that ran took of it, in ns. */
struct Result {
  Arrays outputs;
  std::vector<int64_t> exits;
  int64_t spent;
  std::vector<int64_t> stages;
};

/* What the host may ask of a run or of loading. */
struct LoadOptions {
  std::optional<int64_t> threads;
  std::optional<bool> allow_fallback;
  bool verify;
  Names foreign; /* names of runtimes that are Python's */
};

struct RunOptions {
  std::optional<double> deadline_ms;
  std::optional<int64_t> through;
};

class Loaded {
 public:
  /* Raises: BundleError, InputError. */
  Loaded(const std::string &path, const LoadOptions &options);

  const Bundle &bundle() const { return bundle_; }
  const std::vector<Placement> &placements() const { return placements_; }
  const std::vector<Piece> &pieces() const { return pieces_; }
  const std::vector<Port> &ports() const { return ports_; }

  /* Whether runs may end at different places: after one of several stages, or inside a graph that decides. */
  bool dynamic() const { return pieces_.size() > 1 || bundle_.variant.gated(); }

  /* Raises: InputError when a name, a number type or a shape is not what the model takes. */
  Result run(const Arrays &inputs, const RunOptions &options = {});

  /* What every stage answers when no row leaves: outputs and score by name, without what is carried. */
  std::vector<Arrays> explore(const Arrays &inputs);

  /* What the graph of a stage takes when the model is given `inputs` and no row leaves. */
  std::vector<Array> graph_feeds(const Arrays &inputs, size_t stage);

  /* Forget the recurrent state: the next run starts from zeros. */
  void reset() { state_.reset(); }

  /* Be ready for a run with a deadline: find out what stages take, calibrating if need be, and warm up. */
  void get_ready();

  /* Measure what each stage takes on this device, for so long, and keep it in the user's cache. */
  Costs calibrate(double seconds);

 private:
  Result answer(const std::vector<Piece> &pieces, const Arrays &inputs, int64_t start, const Limits &limits);
  Arrays values(const Arrays &inputs);
  Arrays with_state(const Arrays &inputs);
  void remember(const Arrays &outputs);

  Bundle bundle_;
  std::vector<Placement> placements_;
  std::vector<Piece> pieces_;
  std::vector<Port> ports_;
  std::vector<TensorSpec> recurrent_;
  std::optional<Arrays> state_;
  Sizes state_sizes_;
  std::unique_ptr<Policy> policy_;
};

}  // namespace edgewright
