/* What each node of a graph takes, from ONNX Runtime's own profile. */
#include <dirent.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <map>

#include "files.h"
#include "session.h"
#include "statistics.h"

namespace edgewright {

constexpr int64_t settling_runs = 3;

/* A folder for files of a moment, emptied at the end; a phone has no /tmp. */
class Scratch {
 public:
  Scratch() {
    for (const std::string &base : {setting("TMPDIR"), std::string("/tmp"), std::string("/data/local/tmp"), std::string(".")}) {
      std::string pattern = base + "/edgewright-XXXXXX";
      if (!base.empty() && ::mkdtemp(pattern.data())) {
        path_ = pattern;
        return;
      }
    }
    throw InputError("a profile needs a folder that can be written; name one with TMPDIR");
  }

  ~Scratch() {
    if (DIR *folder = ::opendir(path_.c_str())) {
      while (const dirent *entry = ::readdir(folder)) ::unlink((path_ + "/" + entry->d_name).c_str());
      ::closedir(folder);
    }
    ::rmdir(path_.c_str());
  }

  Scratch(const Scratch &) = delete;
  Scratch &operator=(const Scratch &) = delete;

  const std::string &path() const { return path_; }

 private:
  std::string path_;
};

std::string Session::finish_profile() const {
  const Ort &ort = Ort::get();
  OrtAllocator *allocator = nullptr;
  char *place = nullptr;
  ort.check(ort.api().GetAllocatorWithDefaultOptions(&allocator), "no profile was written");
  ort.check(ort.api().SessionEndProfiling(session_.get(), allocator, &place), "no profile was written");
  std::string found = place;
  ort.complaint(ort.api().AllocatorFree(allocator, place));
  return read_or_empty(found);
}

Json Session::profile(const std::vector<Array> &feeds, int64_t runs) const {
  Scratch scratch;
  SessionOptions options = options_;
  options.profile = scratch.path() + "/profile";
  Session profiled(path_, options);
  for (int64_t i = 0; i < settling_runs + runs; i++) profiled.run(feeds);
  return summarise(Json::parse(profiled.finish_profile()), static_cast<size_t>(runs));
}

/* The name of the node that an event is the run of; empty for other events. */
static std::string node_of(const Json &event) {
  static const std::string suffix = "_kernel_time";
  const Json &category = event.get("cat"), &name = event.get("name");
  if (!category.is_text() || category.text() != "Node" || !name.is_text()) return "";
  const std::string &text = name.text();
  bool ends = text.size() > suffix.size() && text.compare(text.size() - suffix.size(), suffix.size(), suffix) == 0;
  return ends ? text.substr(0, text.size() - suffix.size()) : "";
}

static int64_t first_of_last(const Json &events, size_t runs) {
  std::vector<int64_t> starts;
  for (const Json &event : events.items())
    if (event.get("name").is_text() && event.get("name").text() == "model_run") starts.push_back(event.at("ts").whole());
  std::sort(starts.begin(), starts.end());
  if (starts.size() < runs) throw InputError("onnxruntime's profile lacks some of the runs");
  return starts[starts.size() - runs];
}

Json summarise(const Json &events, size_t runs) {
  int64_t first = first_of_last(events, runs);
  Json::Items nodes;
  std::map<std::string, size_t> places;
  std::vector<std::vector<double>> taken;
  for (const Json &event : events.items()) {
    std::string name = node_of(event);
    if (name.empty() || event.at("ts").whole() < first) continue;
    const Json &about = event.at("args"), &provider = about.get("provider");
    auto [place, fresh] = places.emplace(name, nodes.size());
    if (fresh) {
      nodes.push_back(Json::Members{{"node", name},
                                    {"operator", about.at("op_name")},
                                    {"provider", provider.is_null() ? Json("") : provider}});
      taken.emplace_back();
    }
    taken[place->second].push_back(event.at("dur").real());
  }
  /* A node in a loop runs several times a run: the median of one execution, times how many there are. */
  for (size_t i = 0; i < nodes.size(); i++)
    nodes[i].set("median_us", median(taken[i]) * static_cast<double>(taken[i].size()) / static_cast<double>(runs));
  return nodes;
}

}  // namespace edgewright
