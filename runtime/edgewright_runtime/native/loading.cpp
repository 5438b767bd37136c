#include "loading.h"

#include <algorithm>

#include "files.h"
#include "processor.h"

namespace edgewright {

std::vector<Placement> find_placements(const Bundle &bundle) {
  std::vector<Placement> placements;
  for (const Stage &stage : bundle.variant.stages) {
    auto found = std::find_if(bundle.plan.rbegin(), bundle.plan.rend(), [&](const Placement &each) {
      return each.variant == bundle.variant.name && each.stage == stage.name;
    });
    if (found == bundle.plan.rend())
      throw BundleError(bundle.path + ": the plan does not say where the stage " + quoted(stage.name) + " runs");
    placements.push_back(*found);
  }
  return placements;
}

static const Artifact &find_artifact(const Bundle &bundle, const Placement &placement) {
  for (const Artifact &artifact : bundle.artifacts)
    if (artifact.name == placement.artifact) return artifact;
  throw BundleError(bundle.path + ": the plan names the artifact " + quoted(placement.artifact) +
                    ", which is not there");
}

/* The libraries that an artifact calls. What will be executed is checked even where the bundle was not. */
static Names libraries_of(const Artifact &artifact) {
  Names libraries;
  for (const Companion &library : artifact.companions) {
    const std::string &name = library.name;
    if (name.size() < 3 || name.compare(name.size() - 3, 3, ".so") != 0) continue;
    check_processor(library);
    if (file_digest(library.path) != library.digest)
      throw BundleError(library.path + " was changed after the bundle was written (its digest does not match)");
    libraries.push_back(absolute(library.path));
  }
  return libraries;
}

static void check_runtime(const std::string &runtime, const Names &foreign) {
  if (std::find(foreign.begin(), foreign.end(), runtime) != foreign.end())
    throw InputError("the runtime " + quoted(runtime) + " is a Python module, which the native runner cannot run; "
                     "install Python on the device, or deploy with --runtime ort");
  if (runtime != "ort")
    throw InputError("the bundle asks for the runtime " + quoted(runtime) + ", which the native runner lacks; " +
                     suggest(runtime, {"ort"}));
}

std::shared_ptr<Session> open_session(const Bundle &bundle, const Placement &placement, const Names &foreign) {
  const Artifact &artifact = find_artifact(bundle, placement);
  check_runtime(placement.runtime, foreign);
  bool several = bundle.variant.stages.size() > 1;
  return std::make_shared<Session>(artifact.path, session_options(placement, several, libraries_of(artifact)));
}

}  // namespace edgewright
