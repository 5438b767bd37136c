#include "session.h"

#include <algorithm>

#include "files.h"
#include "processor.h"
#include "providers.h"

namespace edgewright {

/* ------------------------------------------------------------------ opening */

static GraphOptimizationLevel level_of(const std::string &graph) {
  static const std::pair<const char *, GraphOptimizationLevel> levels[] = {
      {"none", ORT_DISABLE_ALL}, {"basic", ORT_ENABLE_BASIC}, {"extended", ORT_ENABLE_EXTENDED}, {"all", ORT_ENABLE_ALL}};
  Names names;
  for (const auto &[name, level] : levels) {
    if (graph == name) return level;
    names.push_back(name);
  }
  throw InputError("graph=" + quoted(graph) + " is no level of graph optimisation; " + suggest(graph, names));
}

SessionOptions session_options(const Placement &placement, bool share_memory, const Names &libraries) {
  const Json &graph = placement.options.get("graph");
  return {placement.provider,
          graph.is_null() ? "all" : graph.is_text() ? graph.text() : graph.shown(),
          placement.threads(),
          placement.options.get("allow_fallback").truthy(),
          share_memory,
          libraries,
          ""};
}

/* Let the session call the operators of a library, which learns how many threads there are to share work. */
static void add_library(const Ort &ort, OrtSessionOptions *settings, const std::string &library, int threads) {
  void *handle = nullptr; /* stays open: operators of it may be in use for as long as we live */
  ort.check(ort.api().AddSessionConfigEntry(settings, "edgewright.threads", std::to_string(threads).c_str()), library);
  ort.check(ort.api().RegisterCustomOpsLibrary(settings, library.c_str(), &handle),
            name_of(library) + " cannot be loaded by onnxruntime " + ort.version());
}

/* Same settings as the Python agent's: see edgewright_runtime/ort_session.py for the reasons. */
static Owned<OrtSessionOptions> settings_of(const Ort &ort, const SessionOptions &options) {
  const OrtApi &api = ort.api();
  OrtSessionOptions *made = nullptr;
  ort.check(api.CreateSessionOptions(&made), "onnxruntime cannot start");
  Owned<OrtSessionOptions> settings(made, api.ReleaseSessionOptions);
  auto check = [&](OrtStatus *status) { ort.check(status, "onnxruntime " + ort.version() + " refuses a setting"); };
  auto entry = [&](const char *key, const char *value) { check(api.AddSessionConfigEntry(made, key, value)); };
  check(api.SetSessionLogSeverityLevel(made, ORT_LOGGING_LEVEL_FATAL));
  check(api.SetSessionGraphOptimizationLevel(made, level_of(options.graph)));
  check(api.SetIntraOpNumThreads(made, options.threads));
  check(api.SetInterOpNumThreads(made, 1));
  entry("session.force_spinning_stop", "1");
  if (!products_are_exact(find_features(find_isa(), read_cpuinfo()))) entry("session.x64quantprecision", "1");
  if (options.provider != CPU && !options.allow_fallback) entry("session.disable_cpu_ep_fallback", "1");
  if (options.share_memory) {
    ort.share_memory();
    entry("session.use_env_allocators", "1");
  }
  for (const std::string &library : options.libraries) add_library(ort, made, library, options.threads);
  if (!options.profile.empty()) check(api.EnableProfiling(made, options.profile.c_str()));
  add_provider(ort, made, options.provider, options.allow_fallback);
  return settings;
}

static std::string why_not(const Ort &ort, const std::string &name, const SessionOptions &options, std::string reason) {
  bool fell_back = reason.find("fallback") != std::string::npos;
  if (options.provider != CPU && !options.allow_fallback && fell_back)
    return options.provider + " does not take every node of " + name + ", and the rest would run on " + CPU +
           "; choose another provider or allow the fallback";
  return name + " cannot be loaded by onnxruntime " + ort.version() + ": " + reason;
}

static OrtSession *create(const Ort &ort, const std::string &path, const SessionOptions &options) {
  Owned<OrtSessionOptions> settings = settings_of(ort, options);
  OrtSession *session = nullptr;
  if (OrtStatus *status = ort.api().CreateSession(ort.env(), path.c_str(), settings.get(), &session))
    throw InputError(why_not(ort, name_of(path), options, ort.complaint(status)));
  return session;
}

static OrtMemoryInfo *cpu_memory(const Ort &ort) {
  OrtMemoryInfo *place = nullptr;
  ort.check(ort.api().CreateCpuMemoryInfo(OrtArenaAllocator, OrtMemTypeDefault, &place), "onnxruntime has no memory");
  return place;
}

Session::Session(const std::string &path, const SessionOptions &options)
    : path_(path),
      options_(options),
      session_(create(Ort::get(), path, options), Ort::get().api().ReleaseSession),
      memory_(cpu_memory(Ort::get()), Ort::get().api().ReleaseMemoryInfo),
      inputs_(names(true)),
      outputs_(names(false)) {
  for (const std::string &name : inputs_) input_names_.push_back(name.c_str());
  for (const std::string &name : outputs_) output_names_.push_back(name.c_str());
}

Names Session::names(bool of_inputs) const {
  const Ort &ort = Ort::get();
  const OrtApi &api = ort.api();
  OrtAllocator *allocator = nullptr;
  size_t count = 0;
  ort.check(api.GetAllocatorWithDefaultOptions(&allocator), path_);
  ort.check((of_inputs ? api.SessionGetInputCount : api.SessionGetOutputCount)(session_.get(), &count), path_);
  Names found;
  for (size_t i = 0; i < count; i++) {
    char *name = nullptr;
    ort.check((of_inputs ? api.SessionGetInputName : api.SessionGetOutputName)(session_.get(), i, allocator, &name),
              path_);
    found.push_back(name);
    ort.complaint(api.AllocatorFree(allocator, name));
  }
  return found;
}

/* ------------------------------------------------------------------ running */

Owned<OrtValue> Session::value_of(const Array &array) const {
  const Ort &ort = Ort::get();
  OrtValue *value = nullptr;
  ort.check(ort.api().CreateTensorWithDataAsOrtValue(
                memory_.get(), array.data.get(), array.bytes(), array.shape.data(), array.shape.size(),
                static_cast<ONNXTensorElementDataType>(array.dtype->onnx), &value),
            name_of(path_) + " cannot run");
  return {value, ort.api().ReleaseValue};
}

/* The array keeps the value alive whose memory it is. */
Array Session::array_of(const std::shared_ptr<OrtValue> &value, const std::string &name) const {
  const Ort &ort = Ort::get();
  const OrtApi &api = ort.api();
  const std::string what = name_of(path_) + " gives " + name + ", which is no array of numbers";
  if (!value) throw InputError(what); /* an optional output that is not there */
  OrtTensorTypeAndShapeInfo *info = nullptr;
  ort.check(api.GetTensorTypeAndShape(value.get(), &info), what);
  Owned<OrtTensorTypeAndShapeInfo> described(info, api.ReleaseTensorTypeAndShapeInfo);
  ONNXTensorElementDataType type;
  size_t rank = 0;
  Array array;
  void *data = nullptr;
  ort.check(api.GetTensorElementType(info, &type), what);
  ort.check(api.GetDimensionsCount(info, &rank), what);
  array.shape.resize(rank);
  ort.check(api.GetDimensions(info, array.shape.data(), rank), what);
  array.dtype = dtype_of_onnx(type);
  if (!array.dtype) throw InputError(what + " of a type that the native runner knows");
  ort.check(api.GetTensorMutableData(value.get(), &data), what);
  array.data = std::shared_ptr<char>(value, static_cast<char *>(data));
  return array;
}

std::vector<Array> Session::run(const std::vector<Array> &feeds) const {
  const Ort &ort = Ort::get();
  std::vector<Owned<OrtValue>> values;
  std::vector<const OrtValue *> given;
  values.reserve(feeds.size());
  for (const Array &array : feeds) {
    values.push_back(value_of(array));
    given.push_back(values.back().get());
  }
  std::vector<OrtValue *> made(outputs_.size(), nullptr);
  OrtStatus *status = ort.api().Run(session_.get(), nullptr, input_names_.data(), given.data(), given.size(),
                                    output_names_.data(), made.size(), made.data());
  std::vector<std::shared_ptr<OrtValue>> owned;
  for (OrtValue *value : made) owned.emplace_back(value, ort.api().ReleaseValue);
  if (status) ort.check(status, name_of(path_) + " cannot run");
  std::vector<Array> results;
  results.reserve(made.size());
  for (size_t i = 0; i < made.size(); i++) results.push_back(array_of(owned[i], outputs_[i]));
  return results;
}

}  // namespace edgewright
