/* The clock that everything is timed by: that of Python's perf_counter. */
#pragma once

#include <time.h>

#include <cstdint>

namespace edgewright {

inline int64_t read_clock(clockid_t clock) {
  struct timespec now;
  ::clock_gettime(clock, &now);
  return int64_t{now.tv_sec} * 1000000000 + now.tv_nsec;
}

/* Nanoseconds since some moment. */
inline int64_t now_ns() { return read_clock(CLOCK_MONOTONIC); }

}  // namespace edgewright
