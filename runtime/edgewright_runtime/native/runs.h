/* Timed runs of one bundle, each with its own input and its own limit, and how far each went. */
#pragma once

#include <optional>
#include <vector>

#include "loaded.h"

namespace edgewright {

class Runs {
 public:
  /* `feeds` are taken one per run; `through` are the last stages to run, one per run and then from the start. */
  Runs(Loaded &loaded, Stream &feeds, std::optional<double> deadline_ms, std::vector<std::optional<int64_t>> through)
      : loaded_(loaded), feeds_(feeds), deadline_ms_(deadline_ms), through_(std::move(through)) {}

  /* One run; the nanoseconds it took. */
  int64_t once();

  /* Of a bundle whose runs end at different places: the last stage that ran (or the latest exit, where the graph
   * decides inside), and what each stage that ran took, per run. */
  const std::vector<int64_t> &depths() const { return depths_; }
  const std::vector<std::vector<int64_t>> &stages() const { return stages_; }

 private:
  Loaded &loaded_;
  Stream &feeds_;
  std::optional<double> deadline_ms_;
  std::vector<std::optional<int64_t>> through_;
  size_t next_ = 0;
  std::vector<int64_t> depths_;
  std::vector<std::vector<int64_t>> stages_;
};

}  // namespace edgewright
