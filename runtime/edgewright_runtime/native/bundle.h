/* A bundle that was opened: what its manifest says, and where its files lie. */
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "arrays.h"
#include "errors.h"
#include "json.h"

namespace edgewright {

/* A size, or the name of a free dimension. */
struct Dim {
  int64_t size;
  std::string name;
  bool free;
};

struct TensorSpec {
  std::string name, dtype;
  std::vector<Dim> shape;

  /* As people write it: `image float32 [1, 3, 224, 224]`. */
  std::string describe() const;

  /* Whether a run takes, or gives, one step of axis 1. */
  bool one_step() const;
};

struct State {
  std::string output, input;
};

struct Signature {
  std::vector<TensorSpec> inputs, outputs;
  std::vector<State> state;

  /* The inputs a caller gives: all but the recurrent ones. */
  std::vector<TensorSpec> fed() const;

  /* What each run takes of inputs that may hold many steps of a recurrent model on axis 1, from the first on. The others
   * go to every step; where nothing holds several, the inputs as they are. Raises: InputError when lengths differ. */
  std::vector<Arrays> steps(const Arrays &inputs) const;
};

/* Rows whose score is at least the threshold leave; without one, none do. */
struct Gate {
  std::string score;
  std::optional<float> threshold;
};

struct Stage {
  std::string name;
  Names inputs, outputs, carry;
  std::optional<Gate> gate;
  bool free_rows;
  std::string exits;

  size_t returns() const { return outputs.size() + carry.size() + (gate || !exits.empty() ? 1 : 0); }
};

struct Variant {
  std::string name;
  std::vector<Stage> stages;

  bool gated() const;
};

/* What a processor must be to run machine code. */
struct Needs {
  std::string name, isa;
  Names features;
};

struct Companion {
  std::string name, path, digest;
  std::optional<Needs> needs;
};

struct Artifact {
  std::string name, path;
  std::vector<Companion> companions;
};

struct Placement {
  std::string variant, stage, artifact, runtime, provider;
  Json options;

  Json entry() const;
  int threads() const;
};

struct Bundle {
  std::string path, digest;
  Signature signature;
  Variant variant; /* the first, which is the one that runs */
  std::vector<Artifact> artifacts;
  std::vector<Placement> plan;
  Json costs;
};

/* Read a bundle's manifest, and check every file against it if `verify`.
 * Raises: BundleError, in one sentence, as edgewright.bundle.open_bundle does. */
Bundle open_bundle(const std::string &path, bool verify);

/* The file at `place` of the bundle in the folder `path`. Raises: BundleError when it lies elsewhere. */
std::string inside(const std::string &path, const std::string &place);

/* Checks the manifest's own digest and those of all files it lists. Raises: BundleError. */
void verify_bundle(const std::string &path, const Json &manifest);

extern const char *const MANIFEST;

}  // namespace edgewright
