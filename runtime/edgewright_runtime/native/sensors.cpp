#include "sensors.h"

#include <fnmatch.h>
#include <glob.h>

#include <algorithm>
#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <map>
#include <regex>

#include "clock.h"
#include "command.h"
#include "files.h"

namespace edgewright {

/* Why a source cannot be read here: one sentence, with what would help. */
struct Absent : std::runtime_error {
  using std::runtime_error::runtime_error;
};

/* What was read, or why not, as a number of the system's. */
struct Outcome {
  std::string text;
  int error = 0;
};

/* ------------------------------------------------------------------ texts and numbers */

static Outcome contents(const std::string &path) {
  std::optional<std::string> text = read_file(path);
  if (!text) return {"", errno};
  return {stripped(*text, std::string("\0 \n", 3)), 0};
}

/* What Python's float takes of it, hexadecimal and underscores left out; nothing for what is no number. */
static std::optional<double> number_in(const std::string &text) {
  char *end = nullptr;
  double value = std::strtod(text.c_str(), &end);
  bool whole = !text.empty() && end == text.c_str() + text.size() && text.find_first_of("xX") == std::string::npos;
  return whole ? std::optional<double>(value) : std::nullopt;
}

static bool among(const std::string &name, const Names &patterns) {
  return std::any_of(patterns.begin(), patterns.end(), [&](const std::string &pattern) {
    return ::fnmatch(pattern.c_str(), name.c_str(), FNM_NOESCAPE) == 0;
  });
}

static std::string beside(const std::string &folder, const std::string &name) { return folder + "/" + name; }

/* ------------------------------------------------------------------ from JSON */

static Names names_of(const Json &list) {
  Names names;
  if (!list.is_null())
    for (const Json &name : list.items()) names.push_back(name.text());
  return names;
}

static Source source_of(const Json &entry) {
  auto text = [&](const char *key) { return entry.get(key).is_null() ? "" : entry.get(key).text(); };
  auto names = [&](const char *key) { return names_of(entry.get(key)); };
  return {entry,           text("rail"),  text("folder"), text("label"), text("wrap"),  text("period"),
          text("state"),   text("fix"),   names("values"), names("argv"), names("only"), names("skip"),
          names("whole"),  names("states"), entry.at("period_ns").whole()};
}

Json Rail::described() const {
  Json stated = source.stated;
  stated.set("period_ns", source.period_ns);
  return Json::Members{
      {"source", stated}, {"rail", name}, {"wrap", wrap ? Json(*wrap) : Json()}, {"whole", whole}};
}

/* ------------------------------------------------------------------ commands */

/* What each pattern finds in a text; a pattern that finds no number is an error. */
static Reading searched(const Source &source, const std::string &said) {
  Reading reading{0, {}, 0};
  for (const std::string &pattern : source.values) {
    std::smatch match;
    std::optional<double> value;
    if (std::regex_search(said, match, std::regex(pattern)) && match.size() > 1) value = number_in(match[1].str());
    if (!value) return {0, {}, EINVAL};
    reading.values.push_back(*value);
  }
  return reading;
}

static void check_command(const Source &source) {
  std::string said;
  int error = command_output(source.argv, said);
  if (error) throw Absent(source.argv[0] + " cannot be run (" + std::strerror(error) + ")");
  try {
    if (!searched(source, said).error) return;
  } catch (const std::regex_error &) {
    throw Absent("the native runner does not read the patterns of " + source.rail);
  }
  throw Absent(joined(source.argv, " ") + " does not tell " + source.rail);
}

/* ------------------------------------------------------------------ finding */

static Names folders_of(const std::string &pattern) {
  glob_t found;
  Names folders;
  if (::glob(pattern.c_str(), 0, nullptr, &found) == 0) folders.assign(found.gl_pathv, found.gl_pathv + found.gl_pathc);
  ::globfree(&found);
  return folders;
}

static void check_readable(const Source &source, const std::string &folder) {
  if (!source.state.empty()) {
    std::string state = contents(beside(folder, source.state)).text;
    bool usable = std::find(source.states.begin(), source.states.end(), state) != source.states.end();
    if (!state.empty() && !usable)
      throw Absent(source.rail + " tells nothing while it is " + quoted(repaired(state)) + "; it has to be " +
                   joined(source.states, " or "));
  }
  for (const std::string &name : source.values) {
    std::string path = beside(folder, name);
    int error = contents(path).error;
    if (!error || error == EAGAIN || error == ENODATA) continue; /* asleep, and it may wake */
    bool forbidden = !source.fix.empty() && (error == EACCES || error == EPERM);
    throw Absent(path + " cannot be read (" + std::strerror(error) + ")" + (forbidden ? "; run: " + source.fix : ""));
  }
}

static Rail rail_in(const Source &source, const std::string &folder, const std::string &name) {
  Rail rail{source, name, folder, std::nullopt, among(name, source.whole)};
  if (!source.wrap.empty()) rail.wrap = number_in(contents(beside(folder, source.wrap)).text);
  if (source.period.empty()) return rail;
  constexpr double longest = 3.6e6; /* an hour, in ms: whatever is beyond it is no period */
  double told = number_in(contents(beside(folder, source.period)).text).value_or(0);
  if (told > 0 && told <= longest) rail.source.period_ns = static_cast<int64_t>(told * 1e6 + 0.5);
  return rail;
}

static std::vector<Rail> rails_of(const Source &source, const std::string &root) {
  if (!source.argv.empty()) {
    check_command(source);
    return {{source, source.rail, "", std::nullopt, among(source.rail, source.whole)}};
  }
  std::vector<Rail> rails;
  Names folders = folders_of(root + (source.folder.rfind('/', 0) ? "/" : "") + source.folder);
  if (folders.empty()) throw Absent(source.folder + " is not there");
  for (const std::string &folder : folders) {
    std::string name = source.label.empty() ? source.rail : repaired(contents(beside(folder, source.label)).text);
    bool wanted = source.only.empty() || among(name, source.only);
    if (name.empty() || among(name, source.skip) || !wanted) continue;
    check_readable(source, folder);
    rails.push_back(rail_in(source, folder, name));
  }
  return rails;
}

/* Rails of one name are told apart by their folders. */
static void tell_apart(std::vector<Rail> &rails) {
  std::map<std::string, int> counts;
  for (const Rail &rail : rails) counts[rail.name]++;
  for (Rail &rail : rails)
    if (counts[rail.name] > 1 && !rail.folder.empty()) rail.name += " of " + name_of(rail.folder);
}

Rails find_rails(const Json &sources, const std::string &root) {
  Rails rails;
  for (const Json &entry : sources.items()) {
    try {
      for (Rail &rail : rails_of(source_of(entry), root)) rails.found.push_back(std::move(rail));
    } catch (const Absent &reason) {
      if (std::find(rails.absent.begin(), rails.absent.end(), reason.what()) == rails.absent.end())
        rails.absent.push_back(reason.what());
    }
  }
  tell_apart(rails.found);
  return rails;
}

/* ------------------------------------------------------------------ reading */

static Reading read_files(const Rail &rail) {
  Reading reading{0, {}, 0};
  for (const std::string &name : rail.source.values) {
    Outcome found = contents(beside(rail.folder, name));
    if (found.error) return {0, {}, found.error};
    std::optional<double> value = number_in(found.text);
    if (!value) return {0, {}, EINVAL};
    reading.values.push_back(*value);
  }
  return reading;
}

std::vector<Reading> read_rails(const std::vector<const Rail *> &rails) {
  std::map<Names, Outcome> commands;
  std::vector<Reading> readings;
  for (const Rail *rail : rails) {
    const Names &argv = rail->source.argv;
    int64_t start = now_ns();
    if (!argv.empty() && !commands.count(argv)) commands[argv].error = command_output(argv, commands[argv].text);
    const Outcome &said = commands[argv]; /* of a rail in files empty, and not looked at */
    Reading reading = argv.empty() ? read_files(*rail) : said.error ? Reading{0, {}, said.error}
                                                                    : searched(rail->source, said.text);
    reading.at = start + (now_ns() - start) / 2;
    readings.push_back(std::move(reading));
  }
  return readings;
}

}  // namespace edgewright
