#include "bundle.h"

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "files.h"

namespace edgewright {

const char *const MANIFEST = "manifest.json";
constexpr int schema = 1;

/* ------------------------------------------------------------------ values */

std::string TensorSpec::describe() const {
  Names sizes;
  for (const Dim &dim : shape) sizes.push_back(dim.free ? dim.name : std::to_string(dim.size));
  return name + " " + dtype + " [" + joined(sizes) + "]";
}

bool TensorSpec::one_step() const { return shape.size() > 1 && !shape[1].free && shape[1].size == 1; }

std::vector<TensorSpec> Signature::fed() const {
  std::vector<TensorSpec> given;
  for (const TensorSpec &spec : inputs) {
    bool kept = std::any_of(state.begin(), state.end(), [&](const State &link) { return link.input == spec.name; });
    if (!kept) given.push_back(spec);
  }
  return given;
}

std::vector<Arrays> Signature::steps(const Arrays &inputs) const {
  Names found, listed;
  int64_t length = 1;
  for (const TensorSpec &spec : fed()) {
    const Array *array = find(inputs, spec.name);
    if (state.empty() || !array || !spec.one_step() || array->shape.size() != spec.shape.size() || array->shape[1] < 2)
      continue;
    found.push_back(spec.name);
    listed.push_back(spec.name + " " + std::to_string(array->shape[1]));
    if (found.size() > 1 && array->shape[1] != length)
      throw InputError("inputs hold different numbers of steps on axis 1: " + joined(listed) +
                       "; give as many of each");
    length = array->shape[1];
  }
  if (found.empty()) return {inputs};
  std::vector<Arrays> taken(static_cast<size_t>(length), inputs);
  for (int64_t at = 0; at < length; at++)
    for (auto &[name, array] : taken[static_cast<size_t>(at)])
      if (std::find(found.begin(), found.end(), name) != found.end()) array = step(array, at);
  return taken;
}

bool Variant::gated() const {
  return std::any_of(stages.begin(), stages.end(), [](const Stage &stage) { return stage.gate || !stage.exits.empty(); });
}

Json Placement::entry() const {
  return Json::Members{{"variant", variant}, {"stage", stage},       {"artifact", artifact},
                       {"runtime", runtime}, {"provider", provider}, {"options", options}};
}

int Placement::threads() const {
  const Json &asked = options.get("threads");
  if (!asked.truthy()) return 1;
  int64_t threads = asked.whole();
  if (threads < 1 || threads > 4096) throw InputError("a plan of " + asked.shown() + " threads; allowed: 1 to 4096");
  return static_cast<int>(threads);
}

/* ------------------------------------------------------------------ from JSON */

template <class T, class Read>
static std::vector<T> each(const Json &list, Read read) {
  std::vector<T> all;
  for (const Json &item : list.items()) all.push_back(read(item));
  return all;
}

template <class T, class Read>
static std::vector<T> each_if_any(const Json &list, Read read) {
  return list.is_null() ? std::vector<T>() : each<T>(list, read);
}

static std::string text_of(const Json &value) { return value.text(); }

static Dim dim_of(const Json &value) {
  if (value.is_text()) return {0, value.text(), true};
  int64_t size = value.whole();
  if (size < 0) throw JsonError("a dimension of " + std::to_string(size));
  return {size, "", false};
}

static TensorSpec spec_of(const Json &entry) {
  return {entry.at("name").text(), entry.at("dtype").text(), each<Dim>(entry.at("shape"), dim_of)};
}

static State state_of(const Json &entry) { return {entry.at("output").text(), entry.at("input").text()}; }

static Signature signature_of(const Json &entry) {
  return {each<TensorSpec>(entry.at("inputs"), spec_of), each<TensorSpec>(entry.at("outputs"), spec_of),
          each_if_any<State>(entry.get("state"), state_of)};
}

static std::optional<Gate> gate_of(const Json &entry) {
  if (!entry.truthy()) return std::nullopt;
  const Json &threshold = entry.get("threshold");
  Gate gate{entry.at("score").text(), std::nullopt};
  if (!threshold.is_null()) gate.threshold = static_cast<float>(threshold.real());
  return gate;
}

static Stage stage_of(const Json &entry) {
  auto names = [&](const char *key) { return each<std::string>(entry.at(key), text_of); };
  const Json &exits = entry.get("exits");
  return {entry.at("name").text(), names("inputs"),
          names("outputs"),        names("carry"),
          gate_of(entry.get("gate")), entry.get("free_rows").truthy(),
          exits.is_null() ? "" : exits.text()};
}

static Variant variant_of(const Json &entry) {
  Variant variant{entry.at("name").text(), each<Stage>(entry.at("stages"), stage_of)};
  if (variant.stages.empty()) throw JsonError("a variant without stages");
  return variant;
}

static std::optional<Needs> needs_of(const Json &entry) {
  if (entry.is_null()) return std::nullopt;
  return Needs{entry.at("name").text(), entry.at("isa").text(), each<std::string>(entry.at("features"), text_of)};
}

static Placement placement_of(const Json &entry) {
  auto text = [&](const char *key) { return entry.at(key).text(); };
  Json options = entry.get("options");
  if (options.is_null()) options = Json::Members{};
  options.members();
  return {text("variant"), text("stage"), text("artifact"), text("runtime"), text("provider"), options};
}

/* ------------------------------------------------------------------ the manifest */

/* A file's place. Raises: BundleError when the manifest does not vouch for it. */
static std::string located(const std::string &path, const Json &entry, const Json &listed) {
  const std::string &place = entry.at("path").text(), &digest = entry.at("digest").text();
  const Json &vouched = listed.get(place);
  if (!vouched.is_text() || vouched.text() != digest)
    throw BundleError(path + "/" + MANIFEST + " names the artifact " + quoted(place) + " without its digest");
  return inside(path, place);
}

static Artifact artifact_of(const std::string &path, const Json &entry, const Json &listed) {
  auto companion = [&](const Json &part) {
    return Companion{part.at("name").text(), located(path, part, listed), part.at("digest").text(),
                     needs_of(part.get("needs"))};
  };
  return {entry.at("name").text(), located(path, entry, listed),
          each_if_any<Companion>(entry.get("companions"), companion)};
}

static Bundle bundle_of(const std::string &path, const Json &manifest) {
  const Json &listed = manifest.at("files");
  listed.members();
  auto artifact = [&](const Json &entry) { return artifact_of(path, entry, listed); };
  auto variants = each<Variant>(manifest.at("variants"), variant_of);
  if (variants.empty()) throw JsonError("no variant");
  return {path,
          manifest.at("digest").text(),
          signature_of(manifest.at("signature")),
          variants.front(),
          each<Artifact>(manifest.at("artifacts"), artifact),
          each<Placement>(manifest.at("plan"), placement_of),
          manifest.get("costs")};
}

static Json read_manifest(const std::string &path) {
  std::string place = path + "/" + MANIFEST;
  std::optional<std::string> text = read_file(place);
  if (!text && (errno == ENOENT || errno == ENOTDIR))
    throw BundleError(path + " is not a bundle: it has no " + MANIFEST);
  if (!text) throw BundleError(place + " cannot be read: " + std::strerror(errno));
  try {
    Json manifest = Json::parse(*text);
    const Json &found = manifest.get("schema");
    if (found.kind() == Json::Kind::number && found.real() == schema) return manifest;
    throw BundleError(place + " has schema " + found.shown() + "; this version reads schema " +
                      std::to_string(schema));
  } catch (const JsonError &error) {
    throw BundleError(place + " cannot be read: " + error.what());
  }
}

Bundle open_bundle(const std::string &given, bool verify) {
  std::string path = given;
  while (path.size() > 1 && path.back() == '/') path.pop_back();
  Json manifest = read_manifest(path);
  if (verify) verify_bundle(path, manifest);
  try {
    return bundle_of(path, manifest);
  } catch (const JsonError &error) {
    throw BundleError(path + "/" + MANIFEST + " is not a manifest of schema " + std::to_string(schema) + ": " +
                      error.what());
  }
}

}  // namespace edgewright
