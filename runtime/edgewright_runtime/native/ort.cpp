#include "ort.h"

#include <dlfcn.h>
#include <glob.h>
#include <unistd.h>

#include <algorithm>
#include <climits>
#include <cstdlib>
#include <cstring>
#include <sstream>

#include "files.h"
#include "json.h"

namespace edgewright {

constexpr int newest = 16, oldest = 11; /* the interface that kernels need; the one with all that we need */
static const char *const NAMED_BY = "EDGEWRIGHT_ONNXRUNTIME";

/* ------------------------------------------------------------------ finding the library */

static void add_matches(Names &places, const std::string &pattern) {
  glob_t found;
  if (::glob(pattern.c_str(), 0, nullptr, &found) == 0)
    for (size_t i = 0; i < found.gl_pathc; i++) places.push_back(found.gl_pathv[i]);
  ::globfree(&found);
}

static std::string own_folder() {
  char program[PATH_MAX];
  ssize_t size = ::readlink("/proc/self/exe", program, sizeof program);
  return size > 0 ? folder_of(std::string(program, static_cast<size_t>(size))) : ".";
}

/* Where the library may lie, best place first. */
static Names places() {
  const std::string library = "/libonnxruntime.so*", wheel = "/onnxruntime/capi" + library, own = own_folder();
  Names found;
  add_matches(found, own + library);
  add_matches(found, own + "/../site" + library);
  add_matches(found, own + "/../site" + wheel);
  for (const char *name : {"libonnxruntime.so", "libonnxruntime.so.1"}) found.push_back(name);
  for (const char *prefix : {"/usr/local/lib", "/usr/lib"}) {
    add_matches(found, prefix + library);
    for (const char *packages : {"/python3*/dist-packages", "/python3*/site-packages"})
      add_matches(found, prefix + std::string(packages) + wheel);
  }
  return found;
}

static void *open_library() {
  std::string named = setting(NAMED_BY);
  if (!named.empty()) {
    if (void *library = ::dlopen(named.c_str(), RTLD_NOW | RTLD_LOCAL)) return library;
    throw InputError(std::string("the onnxruntime that ") + NAMED_BY + " names cannot be opened: " + ::dlerror());
  }
  std::string complaint;
  for (const std::string &place : places()) {
    if (void *library = ::dlopen(place.c_str(), RTLD_NOW | RTLD_LOCAL)) return library;
    const char *said = ::dlerror();
    if (place[0] == '/' && complaint.empty()) complaint = std::string(": ") + said;
  }
  throw InputError("this device has no libonnxruntime.so that can be opened" + complaint +
                   "; put the one of its system beside the runner, or name it with " + NAMED_BY);
}

/* 31 of "1.31.0". Asking for an interface that is too new would make ONNX Runtime complain on standard error. */
static int minor_of(const std::string &version) {
  size_t dot = version.find('.');
  return dot == std::string::npos ? 0 : std::atoi(version.c_str() + dot + 1);
}

Ort::Ort() : library_(open_library()) {
  auto base = reinterpret_cast<const OrtApiBase *(*)()>(::dlsym(library_, "OrtGetApiBase"));
  if (!base) throw InputError("libonnxruntime.so has no OrtGetApiBase, so it is another library");
  version_ = base()->GetVersionString();
  minor_ = minor_of(version_);
  api_ = minor_ < oldest ? nullptr : base()->GetApi(static_cast<uint32_t>(std::min(minor_, newest)));
  if (!api_)
    throw InputError("onnxruntime " + version_ + " here is too old; 1." + std::to_string(oldest) + " is needed");
}

const Ort &Ort::get() {
  static const Ort ort;
  return ort;
}

/* ------------------------------------------------------------------ asking it */

std::string Ort::place() const {
  Dl_info about;
  void *function = ::dlsym(library_, "OrtGetApiBase");
  return function && ::dladdr(function, &about) && about.dli_fname ? about.dli_fname : "";
}

void *Ort::symbol(const char *name) const { return ::dlsym(library_, name); }

OrtEnv *Ort::env() const {
  static OrtEnv *env = [this] {
    OrtEnv *made = nullptr;
    check(api_->CreateEnv(ORT_LOGGING_LEVEL_FATAL, "edgewright", &made), "onnxruntime cannot start");
    return made;
  }();
  return env;
}

Names Ort::providers() const {
  char **names = nullptr;
  int count = 0;
  check(api_->GetAvailableProviders(&names, &count), "onnxruntime does not name its providers");
  Names found(names, names + count);
  complaint(api_->ReleaseAvailableProviders(names, count));
  return found;
}

std::string Ort::complaint(OrtStatus *status) const {
  if (!status) return "";
  std::istringstream words(api_->GetErrorMessage(status));
  Names parts;
  for (std::string word; words >> word;) parts.push_back(word);
  api_->ReleaseStatus(status);
  std::string text = joined(parts, " ").substr(0, 300);
  return text.empty() ? "it gives no reason" : repaired(text);
}

void Ort::check(OrtStatus *status, const std::string &what) const {
  if (status) throw InputError(what + ": " + complaint(status));
}

void Ort::share_memory() const {
  static const bool done = [this] {
    OrtMemoryInfo *place = nullptr;
    check(api_->CreateCpuMemoryInfo(OrtArenaAllocator, OrtMemTypeDefault, &place), "onnxruntime has no memory");
    OrtStatus *status = api_->CreateAndRegisterAllocator(env(), place, nullptr);
    api_->ReleaseMemoryInfo(place);
    check(status, "onnxruntime cannot share memory");
    return true;
  }();
  static_cast<void>(done);
}

}  // namespace edgewright
