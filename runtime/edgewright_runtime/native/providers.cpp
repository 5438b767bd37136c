#include "providers.h"

#include <algorithm>

namespace edgewright {

const char *const CPU = "CPUExecutionProvider";

static OrtStatus *add_cuda(const OrtApi &api, OrtSessionOptions *settings) {
  OrtCUDAProviderOptionsV2 *options = nullptr;
  if (OrtStatus *status = api.CreateCUDAProviderOptions(&options)) return status;
  OrtStatus *status = api.SessionOptionsAppendExecutionProvider_CUDA_V2(settings, options);
  api.ReleaseCUDAProviderOptions(options);
  return status;
}

static OrtStatus *add_tensorrt(const OrtApi &api, OrtSessionOptions *settings) {
  OrtTensorRTProviderOptionsV2 *options = nullptr;
  if (OrtStatus *status = api.CreateTensorRTProviderOptions(&options)) return status;
  OrtStatus *status = api.SessionOptionsAppendExecutionProvider_TensorRT_V2(settings, options);
  api.ReleaseTensorRTProviderOptions(options);
  return status;
}

/* Builds for Android have it as a function of its own. */
static OrtStatus *add_nnapi(const Ort &ort, OrtSessionOptions *settings) {
  using Append = OrtStatus *(*)(OrtSessionOptions *, uint32_t);
  auto append = reinterpret_cast<Append>(ort.symbol("OrtSessionOptionsAppendExecutionProvider_Nnapi"));
  if (!append) return ort.api().CreateStatus(ORT_NOT_IMPLEMENTED, "this build has no function to start it");
  return append(settings, 0);
}

/* `XNNPACK` of `XnnpackExecutionProvider`, as the function for all others calls it. */
static std::string short_name(const std::string &provider) {
  std::string name = provider.substr(0, provider.rfind("ExecutionProvider"));
  return name == "Xnnpack" ? "XNNPACK" : name;
}

static OrtStatus *add(const Ort &ort, OrtSessionOptions *settings, const std::string &provider) {
  const OrtApi &api = ort.api();
  if (provider == "CUDAExecutionProvider") return add_cuda(api, settings);
  if (provider == "TensorrtExecutionProvider") return add_tensorrt(api, settings);
  if (provider == "NnapiExecutionProvider") return add_nnapi(ort, settings);
  if (!ort.is_at_least(12)) return api.CreateStatus(ORT_NOT_IMPLEMENTED, "onnxruntime 1.12 is needed to start it");
  return api.SessionOptionsAppendExecutionProvider(settings, short_name(provider).c_str(), nullptr, nullptr, 0);
}

void add_provider(const Ort &ort, OrtSessionOptions *settings, const std::string &provider, bool allow_fallback) {
  if (provider == CPU) return;
  Names available = ort.providers();
  if (std::find(available.begin(), available.end(), provider) == available.end()) {
    if (allow_fallback) return;
    throw InputError("onnxruntime " + ort.version() + " here has no " + provider + "; " + suggest(provider, available));
  }
  std::string complaint = ort.complaint(add(ort, settings, provider));
  if (!complaint.empty() && !allow_fallback)
    throw InputError(provider + " could not start: " + complaint +
                     "; repair its libraries, choose another provider, or allow the fallback");
}

}  // namespace edgewright
