/* ONNX Runtime, taken from the device's own library through its C interface. */
#pragma once

#include <onnxruntime_c_api.h>

#include <memory>
#include <string>

#include "errors.h"

namespace edgewright {

/* Something of ONNX Runtime's that is released when it is let go of. */
template <class T>
using Owned = std::unique_ptr<T, void (*)(T *)>;

/* The library, opened once per process. */
class Ort {
 public:
  /* Raises: InputError when there is no library that can be used, with what would help. */
  static const Ort &get();

  const OrtApi &api() const { return *api_; }
  const std::string &version() const { return version_; }

  /* Where the library lies. */
  std::string place() const;

  Names providers() const;

  /* Whether this is at least version 1.`minor`. */
  bool is_at_least(int minor) const { return minor_ >= minor; }

  OrtEnv *env() const;

  /* A function beside the interface; null where this build has none. */
  void *symbol(const char *name) const;

  /* The message of a status that tells of an error, on one line; releases it. Empty for null. */
  std::string complaint(OrtStatus *status) const;

  /* Raises: InputError with `what` and the complaint, where there is one. */
  void check(OrtStatus *status, const std::string &what) const;

  /* Have one arena for all sessions of this process that ask for it. */
  void share_memory() const;

 private:
  Ort();

  void *library_;
  const OrtApi *api_;
  std::string version_;
  int minor_;
};

}  // namespace edgewright
