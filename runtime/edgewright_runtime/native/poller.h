/* The poller: a process that reads a meter again and again while something else runs, and then tells all it read. */
#pragma once

#include <sys/types.h>

namespace edgewright {

/* Answer `meter`, read until the next request comes, and answer that; `parent` is the supervisor's process id. */
int poll_meter(pid_t parent);

}  // namespace edgewright
