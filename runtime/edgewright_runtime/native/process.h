/* What a worker needs from its operating system: an end with its parent, its place, and its own memory use. */
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <vector>

#include "json.h"

namespace edgewright {

/* Ask Linux to kill this process when `parent` ends, even if a library never returns. */
void die_with_parent(pid_t parent);

/* Keep this process on `count` of its CPUs, the same for all who say `turn`; only the fastest count where they differ.
 * Returns: the CPUs; empty where nothing was changed. */
std::vector<int> share_cpus(int64_t turn, int64_t count);

/* Leave the CPUs of the process `worker` to it, where `other` has others. */
void keep_away(pid_t other, pid_t worker);

/* The most memory this process has held since it was started, and what it holds now; null where it is not told. */
Json peak_bytes();
Json resident_bytes();

}  // namespace edgewright
