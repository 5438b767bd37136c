#include "runs.h"

#include <algorithm>

#include "clock.h"

namespace edgewright {

int64_t Runs::once() {
  Arrays feeds = feeds_.next();
  RunOptions options{deadline_ms_, through_[next_]};
  next_ = (next_ + 1) % through_.size();
  int64_t start = now_ns();
  Result result = loaded_.run(feeds, options);
  int64_t taken = now_ns() - start;
  if (loaded_.dynamic()) {
    depths_.push_back(result.exits.empty() ? 0 : *std::max_element(result.exits.begin(), result.exits.end()));
    stages_.push_back(std::move(result.stages));
  }
  return taken;
}

}  // namespace edgewright
