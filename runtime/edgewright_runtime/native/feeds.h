/* Checks what a caller feeds against a model's signature; nothing is cast and nothing is guessed. */
#pragma once

#include <map>
#include <string>
#include <vector>

#include "arrays.h"
#include "bundle.h"

namespace edgewright {

/* An input that a caller gives, ready to be checked quickly. */
struct Port {
  TensorSpec spec;
  const Dtype *dtype;

  bool accepts(const Array &array) const;
};

/* Raises: BundleError for a number type that is not known. */
std::vector<Port> make_ports(const std::vector<TensorSpec> &specs);

/* Raises: InputError, in one sentence, when `feeds` is not what `ports` take. */
void check_feeds(const std::vector<Port> &ports, const Arrays &feeds);

using Sizes = std::map<std::string, int64_t>;

/* The sizes that `feeds` give to the free dimensions. */
Sizes sizes_of(const std::vector<Port> &ports, const Arrays &feeds);

/* Zeros of a spec; a free dimension takes its size from `free`, else 1. */
Array zeros_of(const TensorSpec &spec, const Sizes &free);

}  // namespace edgewright
