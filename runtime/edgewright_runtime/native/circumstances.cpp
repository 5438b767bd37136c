#include "circumstances.h"

#include <glob.h>
#include <unistd.h>

#include <algorithm>
#include <cctype>
#include <cstdlib>
#include <optional>
#include <sstream>

#include "command.h"
#include "errors.h"
#include "files.h"

namespace edgewright {

/* Every place that the pattern names, in order. */
static Names places(const std::string &pattern) {
  glob_t found;
  Names all;
  if (::glob(pattern.c_str(), 0, nullptr, &found) == 0) all.assign(found.gl_pathv, found.gl_pathv + found.gl_pathc);
  ::globfree(&found);
  return all;
}

/* A file of the kernel's; nothing where it cannot be read, as of a zone that is switched off. */
static std::string told(const std::string &path) { return repaired(stripped(read_or_empty(path))); }

static bool is_number(const std::string &text) {
  return !text.empty() && text.find_first_not_of("0123456789") == std::string::npos;
}

static bool is_program(const std::string &name) {
  std::istringstream folders(setting("PATH"));
  for (std::string folder; std::getline(folders, folder, ':');)
    if (is_file(folder + "/" + name) && ::access((folder + "/" + name).c_str(), X_OK) == 0) return true;
  return false;
}

/* What a command prints; nothing where it is not there, fails or takes too long. */
static std::string said(const Names &argv) {
  std::string output;
  return is_program(argv[0]) && command_output(argv, output) == 0 ? output : "";
}

/* What stands behind `label` and blanks. */
static std::string behind(const std::string &label, const std::string &text) {
  size_t found = text.find(label);
  if (found == std::string::npos) return "";
  size_t begin = text.find_first_not_of(" \t", found + label.size());
  return begin == std::string::npos ? "" : text.substr(begin, text.find('\n', begin) - begin);
}

/* ------------------------------------------------------------------ heat, and what is done about it */

/* The highest reading in °C. Zones below -40 are switched off, and those called PMIC tell a fixed value. */
static Json hottest(const std::string &thermal) {
  std::optional<double> highest;
  for (const std::string &zone : places(thermal + "/thermal_zone*")) {
    std::string text = told(zone + "/temp");
    char *end = nullptr;
    double reading = static_cast<double>(std::strtol(text.c_str(), &end, 10)) / 1000;
    if (text.empty() || *end || reading <= -40 || told(zone + "/type").find("PMIC") != std::string::npos) continue;
    highest = std::max(highest.value_or(reading), reading);
  }
  return highest ? Json(*highest) : Json();
}

/* The signs in what `vcgencmd get_throttled` prints; its other bits tell of the past. */
static Names raspberry_signs() {
  const char *names[] = {"under-voltage", "clock capped", "throttled", "soft temperature limit"};
  unsigned long bits = std::strtoul(behind("throttled=", said({"vcgencmd", "get_throttled"})).c_str(), nullptr, 16);
  Names signs;
  for (int bit = 0; bit < 4; bit++)
    if (bits >> bit & 1) signs.push_back(names[bit]);
  return signs;
}

/* Whatever slows the clocks down; fans do not. */
static std::string throttled(const std::string &thermal) {
  Names signs = raspberry_signs();
  std::string status = is_program("getprop") ? behind("Thermal Status:", said({"dumpsys", "thermalservice"})) : "";
  status = stripped(status);
  if (is_number(status) && status != "0") signs.push_back("thermal status " + status);
  for (const std::string &cooler : places(thermal + "/cooling_device*")) {
    std::string state = told(cooler + "/cur_state"), kind = told(cooler + "/type"), lower = kind;
    for (char &letter : lower) letter = static_cast<char>(std::tolower(static_cast<unsigned char>(letter)));
    if (is_number(state) && std::strtol(state.c_str(), nullptr, 10) && lower.find("fan") == std::string::npos)
      signs.push_back(kind + " at step " + state);
  }
  return joined(signs);
}

/* How often x86 cores were slowed for heat since the start. */
static Json throttle_count(const std::string &cpus) {
  std::optional<int64_t> sum;
  for (const std::string &file : places(cpus + "/cpu*/thermal_throttle/core_throttle_count")) {
    std::string text = told(file);
    if (is_number(text)) sum = sum.value_or(0) + std::strtoll(text.c_str(), nullptr, 10);
  }
  return sum ? Json(*sum) : Json();
}

/* ------------------------------------------------------------------ clocks and modes */

static Json mhz(const std::string &kilohertz) {
  return is_number(kilohertz) ? Json(std::strtod(kilohertz.c_str(), nullptr) / 1000) : Json();
}

/* Phones and boards with big and little cores have several groups; a virtual machine has none. */
static Json clocks(const std::string &cpus) {
  Json::Items groups;
  Names policies = places(cpus + "/cpufreq/policy*");
  std::stable_sort(policies.begin(), policies.end(),
                   [](const std::string &one, const std::string &other) { return one.size() < other.size(); });
  for (const std::string &policy : policies)
    groups.push_back(Json::Members{{"cpus", told(policy + "/related_cpus")},
                                   {"governor", told(policy + "/scaling_governor")},
                                   {"mhz", mhz(told(policy + "/scaling_cur_freq"))},
                                   {"limit_mhz", mhz(told(policy + "/scaling_max_freq"))},
                                   {"most_mhz", mhz(told(policy + "/cpuinfo_max_freq"))}});
  return groups;
}

Json::Members conditions(const std::string &root) {
  std::string thermal = root + "/sys/class/thermal", cpus = root + "/sys/devices/system/cpu";
  std::string load = read_or_empty("/proc/loadavg");
  return {{"load_average", load.empty() ? Json() : Json(std::strtod(load.c_str(), nullptr))},
          {"temperature_c", hottest(thermal)},
          {"clocks", clocks(cpus)},
          {"power_mode", repaired(stripped(behind("NV Power Mode:", said({"nvpmodel", "-q"}))))},
          {"throttled", throttled(thermal)},
          {"throttle_count", throttle_count(cpus)}};
}

}  // namespace edgewright
