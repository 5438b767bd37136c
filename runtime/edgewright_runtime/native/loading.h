/* Opens what a bundle's plan asks for. */
#pragma once

#include <memory>
#include <vector>

#include "bundle.h"
#include "session.h"

namespace edgewright {

/* Where each stage of the first variant runs, in order. Raises: BundleError. */
std::vector<Placement> find_placements(const Bundle &bundle);

/* Raises: BundleError for a library that is not to be executed here; InputError; `foreign` names runtimes of Python. */
std::shared_ptr<Session> open_session(const Bundle &bundle, const Placement &placement, const Names &foreign);

}  // namespace edgewright
