/* A worker: one process that holds one candidate, runs it, times it, and answers the supervisor line by line. */
#pragma once

#include <sys/types.h>

namespace edgewright {

/* Answer requests until standard input ends; `parent` is the supervisor's process id. */
int work(pid_t parent);

}  // namespace edgewright
