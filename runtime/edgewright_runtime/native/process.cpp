#include "process.h"

#include <sched.h>
#include <signal.h>
#include <sys/prctl.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>

#include "errors.h"
#include "files.h"
#include "processor.h"

namespace edgewright {

void die_with_parent(pid_t parent) {
  ::prctl(PR_SET_PDEATHSIG, SIGKILL);
  if (::getppid() != parent) ::_exit(1);
}

/* The highest clock in kHz; 0 where it is not told. */
static long clock_of(int cpu) {
  std::string place = "/sys/devices/system/cpu/cpu" + std::to_string(cpu) + "/cpufreq/cpuinfo_max_freq";
  return std::strtol(read_or_empty(place).c_str(), nullptr, 10);
}

static std::vector<int> fastest_cpus() {
  cpu_set_t allowed;
  CPU_ZERO(&allowed);
  std::vector<int> cpus, fastest;
  if (::sched_getaffinity(0, sizeof allowed, &allowed)) return cpus;
  long highest = 0;
  for (int cpu = 0; cpu < CPU_SETSIZE; cpu++)
    if (CPU_ISSET(cpu, &allowed)) cpus.push_back(cpu), highest = std::max(highest, clock_of(cpu));
  for (int cpu : cpus)
    if (clock_of(cpu) == highest) fastest.push_back(cpu);
  return fastest;
}

std::vector<int> share_cpus(int64_t turn, int64_t count) {
  if (turn < 0 || count < 1) throw InputError("a turn of 0 and more and a count of 1 and more CPUs are needed");
  std::vector<int> cpus = fastest_cpus(), chosen;
  const auto size = static_cast<int64_t>(cpus.size());
  if (count >= size) return {};
  const int64_t first = turn % size;
  cpu_set_t wanted;
  CPU_ZERO(&wanted);
  for (int64_t i = 0; i < count; i++) {
    chosen.push_back(cpus[static_cast<size_t>((first + i) % size)]);
    CPU_SET(chosen.back(), &wanted);
  }
  return ::sched_setaffinity(0, sizeof wanted, &wanted) ? std::vector<int>() : chosen;
}

void keep_away(pid_t other, pid_t worker) {
  cpu_set_t ours, taken, left;
  if (::sched_getaffinity(0, sizeof ours, &ours) || ::sched_getaffinity(worker, sizeof taken, &taken)) return;
  CPU_AND(&taken, &ours, &taken);
  CPU_XOR(&left, &ours, &taken);
  if (CPU_COUNT(&left)) ::sched_setaffinity(other, sizeof left, &left);
}

static Json status(const char *key) {
  std::string said = cpuinfo_field(read_or_empty("/proc/self/status"), {key});
  return said.empty() ? Json() : Json(int64_t{std::strtoll(said.c_str(), nullptr, 10)} * 1024);
}

Json peak_bytes() { return status("VmHWM"); }
Json resident_bytes() { return status("VmRSS"); }

}  // namespace edgewright
