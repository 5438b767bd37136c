/* Believes a bundle only after every digest was checked, and no path that leaves its folder. */
#include <climits>
#include <cstdlib>

#include "bundle.h"
#include "files.h"
#include "sha256.h"

namespace edgewright {

/* Whether a place stays in the bundle, as far as its text goes. */
static bool is_safe(const std::string &place) {
  if (place.empty() || place[0] == '/' || place.find_first_of("\\:") != std::string::npos ||
      place.find('\0') != std::string::npos)
    return false;
  bool named = false;
  for (size_t begin = 0; begin <= place.size();) {
    size_t end = std::min(place.find('/', begin), place.size());
    std::string part = place.substr(begin, end - begin);
    if (part == "..") return false;
    named = named || (!part.empty() && part != ".");
    begin = end + 1;
  }
  return named;
}

/* The place with all links followed; empty where there is nothing. */
static std::string real_path(const std::string &path) {
  char *found = ::realpath(path.c_str(), nullptr);
  std::string real = found ? found : "";
  std::free(found);
  return real;
}

std::string inside(const std::string &path, const std::string &place) {
  if (!is_safe(place))
    throw BundleError("the bundle names the path " + quoted(place) + ", which leaves its folder; it was not opened");
  std::string file = path + "/" + place, root = real_path(path) + "/", real = real_path(file);
  if (!real.empty() && root != "//" && real.compare(0, root.size(), root) != 0)
    throw BundleError(file + " is a link that leaves the bundle; it was not opened");
  return file;
}

static std::string manifest_digest(const Json &manifest) {
  Json::Members rest;
  for (const Json::Member &member : manifest.members())
    if (member.name != "digest") rest.push_back(member);
  return sha256(Json(rest).sorted());
}

static void verify_file(const std::string &path, const std::string &place, const Json &digest) {
  std::string file = inside(path, place);
  if (!is_file(file)) throw BundleError(path + " lacks " + place + ", which its manifest lists");
  std::optional<std::string> found = file_digest(file);
  if (!found || !digest.is_text() || *found != digest.text())
    throw BundleError(file + " was changed after the bundle was written (its digest does not match)");
}

void verify_bundle(const std::string &path, const Json &manifest) {
  std::string place = path + "/" + MANIFEST;
  const Json &digest = manifest.get("digest");
  if (!digest.is_text() || digest.text() != manifest_digest(manifest))
    throw BundleError(place + " was changed after it was written (its digest does not match)");
  const Json &files = manifest.get("files");
  if (files.kind() != Json::Kind::object) throw BundleError(place + " lists no files");
  for (const Json::Member &file : files.members()) verify_file(path, file.name, file.value);
}

}  // namespace edgewright
