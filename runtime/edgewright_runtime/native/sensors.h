/* Finds the rails that a meter's sources name on this device, and reads them; as edgewright_runtime/sensors.py does. */
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "errors.h"
#include "json.h"

namespace edgewright {

/* The fields of edgewright.types.Source that reading needs, and all of them as they came. */
struct Source {
  Json stated;
  std::string rail, folder, label, wrap, period, state, fix;
  Names values, argv, only, skip, whole, states;
  int64_t period_ns;
};

/* A source found in one folder. */
struct Rail {
  Source source;
  std::string name, folder;
  std::optional<double> wrap;
  bool whole;

  /* What the host has to know of it. */
  Json described() const;
};

struct Rails {
  std::vector<Rail> found;
  Names absent; /* why others cannot be read: one sentence each */
};

/* The rails that can be read below `root`. Raises: JsonError for what states no sources. */
Rails find_rails(const Json &sources, const std::string &root);

/* When a rail was read (ns), and its raw values, or the number of the error that it failed with. */
struct Reading {
  int64_t at;
  std::vector<double> values;
  int error;
};

/* Of each rail; a command that several of them name is run once. */
std::vector<Reading> read_rails(const std::vector<const Rail *> &rails);

}  // namespace edgewright
