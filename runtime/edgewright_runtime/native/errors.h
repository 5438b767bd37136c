/* Errors that go back to the host, and the words they are made of. */
#pragma once

#include <stdexcept>
#include <string>
#include <vector>

namespace edgewright {

/* One sentence for the user; `kind` is a class of edgewright.errors. */
struct Error : std::runtime_error {
  Error(const char *kind_of, const std::string &message) : std::runtime_error(message), kind(kind_of) {}
  const char *kind;
};

struct InputError : Error {
  explicit InputError(const std::string &message) : Error("InputError", message) {}
};

struct BundleError : Error {
  explicit BundleError(const std::string &message) : Error("BundleError", message) {}
};

struct DeviceError : Error {
  explicit DeviceError(const std::string &message) : Error("DeviceError", message) {}
};

struct PluginError : Error {
  explicit PluginError(const std::string &message) : Error("PluginError", message) {}
};

using Names = std::vector<std::string>;

std::string joined(const Names &parts, const std::string &between = ", ");

/* `text` as Python shows it: in quotes, what does not print escaped. */
std::string quoted(const std::string &text);

/* The allowed names and the nearest one to `name`, ready to end a sentence. */
std::string suggest(const std::string &name, Names allowed);

}  // namespace edgewright
