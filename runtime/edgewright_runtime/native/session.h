/* One ONNX file, loaded into ONNX Runtime. */
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "arrays.h"
#include "bundle.h"
#include "json.h"
#include "ort.h"

namespace edgewright {

/* How a session is opened; `libraries` hold operators of the bundle's own, whose digests were checked. */
struct SessionOptions {
  std::string provider, graph;
  int threads;
  bool allow_fallback, share_memory;
  Names libraries;
  std::string profile; /* where to put a profile, if anywhere */
};

/* From a plan's placement. Raises: InputError. */
SessionOptions session_options(const Placement &placement, bool share_memory, const Names &libraries);

class Session {
 public:
  /* Raises: InputError when the file or the provider cannot be used. */
  Session(const std::string &path, const SessionOptions &options);

  const Names &inputs() const { return inputs_; }
  const Names &outputs() const { return outputs_; }

  /* The outputs, in the graph's order, of inputs in the graph's order. Raises: InputError. */
  std::vector<Array> run(const std::vector<Array> &feeds) const;

  /* Per executed node what it took, as the operation `profile` gives it; a session of its own is opened for that. */
  Json profile(const std::vector<Array> &feeds, int64_t runs) const;

 private:
  Names names(bool of_inputs) const;
  Owned<OrtValue> value_of(const Array &array) const;
  Array array_of(const std::shared_ptr<OrtValue> &value, const std::string &name) const;
  std::string finish_profile() const;

  std::string path_;
  SessionOptions options_;
  Owned<OrtSession> session_;
  Owned<OrtMemoryInfo> memory_;
  Names inputs_, outputs_;
  std::vector<const char *> input_names_, output_names_;
};

/* Sums a profile of ONNX Runtime's up, over the last `runs` runs in it. */
Json summarise(const Json &events, size_t runs);

}  // namespace edgewright
