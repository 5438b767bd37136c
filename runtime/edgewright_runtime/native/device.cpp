#include "device.h"

#include <sched.h>
#include <sys/utsname.h>
#include <unistd.h>

#ifdef __GLIBC__
#include <gnu/libc-version.h>
#endif

#include <climits>
#include <cstdio>
#include <cstdlib>

#include "errors.h"
#include "files.h"
#include "ort.h"
#include "processor.h"
#include "sha256.h"

namespace edgewright {

std::string libc() {
#if defined(__GLIBC__)
  return std::string("glibc ") + gnu_get_libc_version();
#elif defined(__BIONIC__)
  return "bionic";
#else
  return "unknown";
#endif
}

static std::string system_name() {
  struct utsname about;
  return ::uname(&about) == 0 ? std::string(about.sysname) + " " + about.release : "unknown";
}

static int cores() {
  cpu_set_t allowed;
  CPU_ZERO(&allowed);
  return ::sched_getaffinity(0, sizeof allowed, &allowed) == 0 ? CPU_COUNT(&allowed) : 1;
}

/* What Android says of itself; nothing elsewhere. */
static std::string property(const std::string &name) {
  FILE *said = ::popen(("command -v getprop >/dev/null && getprop " + name).c_str(), "re");
  if (!said) return "";
  char text[256] = "";
  size_t size = ::fread(text, 1, sizeof text, said);
  ::pclose(said);
  return stripped(std::string(text, size));
}

/* The last, most general name in the device tree, such as `brcm,bcm2711`. */
static std::string soc() {
  std::string drop(" \n\0", 3), names = read_or_empty("/proc/device-tree/compatible");
  size_t end = names.find_last_not_of(drop);
  if (end == std::string::npos) return repaired(property("ro.soc.model"));
  names.resize(end + 1);
  return repaired(names.substr(names.find_last_of('\0') + 1));
}

static std::string cpu(const std::string &cpuinfo) {
  std::string board = stripped(read_or_empty("/proc/device-tree/model"), std::string(" \n\0", 3));
  if (!board.empty()) return repaired(board);
  std::string product = property("ro.product.model");
  if (!product.empty()) return repaired(product);
  std::string named = cpuinfo_field(cpuinfo, {"model name", "Hardware", "Model"});
  return named.empty() ? "unknown" : repaired(named);
}

static int64_t memory_bytes() {
  std::string said = cpuinfo_field(read_or_empty("/proc/meminfo"), {"MemTotal"});
  return std::strtoll(said.c_str(), nullptr, 10) * 1024;
}

static std::string governor() {
  std::string said = stripped(read_or_empty("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor"));
  return said.empty() ? "unknown" : said;
}

/* ------------------------------------------------------------------ emulation */

static bool runs_under_qemu(const std::string &process) {
  char program[PATH_MAX];
  ssize_t size = ::readlink(("/proc/" + process + "/exe").c_str(), program, sizeof program);
  return size > 0 && name_of(std::string(program, static_cast<size_t>(size))).rfind("qemu-", 0) == 0;
}

/* User-mode QEMU shows as our own executable or our parent's, as a registered interpreter for our own instruction set,
 * or as an x86 cpuinfo under another set; full emulation names itself as the processor. */
static bool is_emulated(const std::string &isa, const std::string &cpuinfo) {
  if (runs_under_qemu("thread-self") || runs_under_qemu(std::to_string(::getppid()))) return true;
  if (::access(("/proc/sys/fs/binfmt_misc/qemu-" + isa).c_str(), F_OK) == 0) return true;
  if (isa != "x86_64" && isa != "i686" && !cpuinfo_field(cpuinfo, {"vendor_id"}).empty()) return true;
  for (const char *name : {"QEMU TCG", "QEMU Virtual CPU", "VirtualApple"})
    if (cpuinfo.find(name) != std::string::npos) return true;
  return false;
}

/* ------------------------------------------------------------------ all of it */

static Json listed(const Names &names) { return Json::Items(names.begin(), names.end()); }

Json find_device() {
  std::string cpuinfo = read_cpuinfo(), isa = find_isa();
  Json versions = Json::Members{};
  Names providers;
  try {
    versions.set("onnxruntime", Ort::get().version());
    providers = Ort::get().providers();
  } catch (const InputError &) {
    /* a device without a runtime is a device too */
  }
  Json device = Json::Members{
      {"isa", isa},
      {"cpu", cpu(cpuinfo)},
      {"cores", cores()},
      {"memory_bytes", memory_bytes()},
      {"os", system_name()},
      {"libc", libc()},
      {"python", ""},
      {"features", listed(find_features(isa, cpuinfo))},
      {"versions", versions},
      {"providers", listed(providers)},
      {"governor", governor()},
      {"emulated", is_emulated(isa, cpuinfo)},
  };
  device.set("fingerprint", sha256(device.sorted()).substr(0, 16));
  device.set("soc", soc());
  return device;
}

const std::string &fingerprint() {
  static const std::string found = find_device().at("fingerprint").text();
  return found;
}

}  // namespace edgewright
