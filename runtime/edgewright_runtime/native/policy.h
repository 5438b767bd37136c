/* Decides how far a run may go: what stages take on this device, and what still fits before a deadline. */
#pragma once

#include <optional>

#include "bundle.h"
#include "costs.h"
#include "flow.h"

namespace edgewright {

class Policy {
 public:
  explicit Policy(const Bundle &bundle, int threads);

  /* Without a limit. */
  const Limits &whole() const { return whole_; }

  /* What each stage takes on this device: as the manifest or an earlier process says; empty when unknown. */
  const Costs &costs();

  /* From now on these are the costs, for later processes too. */
  void learn(const Costs &costs);

  /* How far a run that started at `start` (ns) may go. Raises: InputError for a stage that is not there. */
  Limits limits(int64_t start, std::optional<double> deadline_ms, std::optional<int64_t> through) const;

  /* Raises: InputError when runs cannot stop before the end; with an answer, unless nobody wants one. */
  void check(bool answering = true) const;

  bool ready = false; /* whether the costs are known and the sessions warm */

 private:
  void take(const Costs &costs);

  const Bundle &bundle_;
  int threads_;
  Limits whole_;
  Costs costs_;
  std::vector<double> highs_, usual_;
};

/* Raises: InputError unless a deadline is 0 or more. */
void check_deadline(std::optional<double> deadline_ms);

}  // namespace edgewright
