#include "setup.h"

#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstring>
#include <filesystem>

#include "channel.h"
#include "device.h"
#include "errors.h"
#include "holding.h"
#include "json.h"
#include "ort.h"

namespace edgewright {

int probe() {
  auto [source, sink] = private_streams();
  static_cast<void>(source);
  Json told = Json::Members{{"libc", libc()}, {"version", ""}, {"file", ""}, {"trouble", ""}};
  try {
    const Ort &ort = Ort::get();
    ort.env(); /* where versions that do not bear a board end */
    Names providers = ort.providers();
    told.set("version", ort.version());
    told.set("file", ort.place());
    told.set("providers", Json::Items(providers.begin(), providers.end()));
  } catch (const Error &error) {
    told.set("trouble", repaired(error.what()));
  }
  return send(sink, told.compact() + "\n") ? 0 : 1;
}

/* Raises: filesystem_error. */
static void lead(const std::string &name) {
  namespace fs = std::filesystem;
  if (name.empty()) {
    if (fs::is_symlink("site")) fs::remove("site");
  } else {
    if (name.find('/') != std::string::npos || !fs::is_directory("sites/" + name))
      throw fs::filesystem_error("it was not sent", name, std::make_error_code(std::errc::no_such_file_or_directory));
    fs::remove("site.new");
    fs::create_symlink("sites/" + name, "site.new");
    fs::rename("site.new", "site");
  }
  std::error_code ignored; /* what cannot be removed is in nobody's way */
  if (!fs::is_directory("sites")) return;
  for (const fs::directory_entry &other : fs::directory_iterator("sites"))
    if (other.path().filename() != name) fs::remove_all(other.path(), ignored);
}

int place(const std::string &folder, const std::string &name) {
  constexpr int busy = 75;
  try {
    std::filesystem::current_path(folder);
    Lock lock;
    lock.take("lock", "engine device setup", 0);
    lead(name);
    return 0;
  } catch (const Error &held) {
    std::fprintf(stderr, "%s\n", held.what());
    return busy;
  } catch (const std::filesystem::filesystem_error &error) {
    std::fprintf(stderr, "%s\n", error.what());
    return 1;
  }
}

}  // namespace edgewright
