#include "processor.h"

#include <sys/auxv.h>
#include <sys/utsname.h>

#include <algorithm>
#include <sstream>

#include "files.h"

namespace edgewright {

static const Names FEATURES = {
    "sse4_2", "avx",      "avx2",    "f16c", "fma",    "avx_vnni", "amx_tile", "amx_int8", "amx_bf16", "avx512f",
    "avx512bw", "avx512_vnni", "avx512_bitalg", "avx512_bf16", "avx512_fp16",
    "neon", "asimd", "asimdhp", "asimddp", "i8mm", "bf16", "sve", "sve2", "sme"};

/* Where Linux tells a process on aarch64 what it can do (arch/arm64/include/uapi/asm/hwcap.h). */
struct ArmBit {
  unsigned long word;
  int bit;
  const char *name;
};
static const ArmBit ARM_BITS[] = {{16, 1, "asimd"}, {16, 10, "asimdhp"}, {16, 20, "asimddp"}, {16, 22, "sve"},
                                  {26, 1, "sve2"},  {26, 13, "i8mm"},    {26, 14, "bf16"},    {26, 23, "sme"}};

static bool among(const Names &names, const std::string &name) {
  return std::find(names.begin(), names.end(), name) != names.end();
}

std::string read_cpuinfo() { return read_or_empty("/proc/cpuinfo"); }

std::string cpuinfo_field(const std::string &cpuinfo, const Names &names) {
  std::istringstream lines(cpuinfo);
  for (std::string line; std::getline(lines, line);) {
    size_t colon = line.find(':');
    if (colon != std::string::npos && among(names, stripped(line.substr(0, colon))))
      if (std::string value = stripped(line.substr(colon + 1)); !value.empty()) return value;
  }
  return "";
}

std::string find_isa() {
  struct utsname about;
  std::string isa = ::uname(&about) == 0 ? about.machine : "";
  if (isa == "amd64") isa = "x86_64";
  if (isa == "arm64") isa = "aarch64";
  if (sizeof(void *) == 8) return isa;
  return isa == "x86_64" ? "i686" : isa == "aarch64" ? "armv8l" : isa;
}

Names find_features(const std::string &isa, const std::string &cpuinfo) {
  Names found;
  if (isa == "aarch64") {
    for (const ArmBit &each : ARM_BITS)
      if (::getauxval(each.word) >> each.bit & 1) found.push_back(each.name);
  } else {
    std::istringstream flags(cpuinfo_field(cpuinfo, {"flags", "Features"}));
    for (std::string flag; flags >> flag;)
      if (among(FEATURES, flag)) found.push_back(flag);
  }
  std::sort(found.begin(), found.end());
  return found;
}

/* What a processor would need and what it is instead; nothing where it can do all. */
static std::string lacking(const Needs &needs, const std::string &isa, const Names &features) {
  if (needs.isa != isa) return "a processor of " + needs.isa + ", and this one is " + isa;
  Names missing;
  for (const std::string &feature : needs.features)
    if (among(FEATURES, feature) && !among(features, feature)) missing.push_back(feature);
  if (missing.empty() || features.empty()) return "";
  std::sort(missing.begin(), missing.end());
  return joined(missing) + ", which this CPU lacks (it has " + joined(features) + ")";
}

bool products_are_exact(const Names &features) {
  return std::any_of(features.begin(), features.end(),
                     [](const std::string &name) { return name == "avx512_vnni" || name == "avx_vnni"; });
}

void check_processor(const Companion &library) {
  if (!library.needs) return;
  std::string isa = find_isa(), lacks = lacking(*library.needs, isa, find_features(isa, read_cpuinfo()));
  if (!lacks.empty())
    throw BundleError(library.name + " of this bundle is made for " + library.needs->name + " and needs " + lacks +
                      "; deploy again with the --target that this device is, or with --exporter onnx, which runs "
                      "everywhere");
}

}  // namespace edgewright
