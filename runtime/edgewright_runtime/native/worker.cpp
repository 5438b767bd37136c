#include "worker.h"

#include <unistd.h>

#include <memory>

#include "channel.h"
#include "circumstances.h"
#include "clock.h"
#include "device.h"
#include "infer.h"
#include "messages.h"
#include "npy.h"
#include "ort.h"
#include "process.h"
#include "runs.h"
#include "timing.h"

namespace edgewright {

/* ------------------------------------------------------------------ what requests hold */

static std::optional<int64_t> whole_or_none(const Json &value) {
  return value.is_null() ? std::nullopt : std::optional<int64_t>(value.whole());
}

static std::optional<double> real_or_none(const Json &value) {
  return value.is_null() ? std::nullopt : std::optional<double>(value.real());
}

static Arrays arrays_of(const Json &request) {
  Arrays arrays;
  for (const auto &[name, place] : request.at("inputs").members()) arrays.emplace_back(name, read_array(place.text()));
  return arrays;
}

static int64_t batch_of(const Json &request) { return whole_or_none(request.get("batch")).value_or(1); }

static RunOptions limits_of(const Json &request) {
  return {real_or_none(request.get("deadline_ms")), whole_or_none(request.get("through"))};
}

static LoadOptions load_options(const Json &request) {
  LoadOptions options{whole_or_none(request.get("threads")), std::nullopt, true, {}};
  if (const Json &fallback = request.get("allow_fallback"); !fallback.is_null()) options.allow_fallback = fallback.truthy();
  if (const Json &verify = request.get("verify"); !verify.is_null()) options.verify = verify.truthy();
  if (const Json &runtimes = request.get("runtimes"); !runtimes.is_null())
    for (const Json::Member &runtime : runtimes.members()) options.foreign.push_back(runtime.name);
  return options;
}

template <class T>
static Json list_of(const std::vector<T> &values) {
  return Json::Items(values.begin(), values.end());
}

static Json written(const std::string &folder, const Arrays &arrays) {
  Json::Members places;
  for (const auto &[name, array] : arrays) places.push_back({name, write_array(folder, array)});
  return places;
}

/* ------------------------------------------------------------------ the worker */

/* The one candidate of this process, once `open` has loaded it. */
class Worker {
 public:
  /* What the request asks for. */
  Json answer(const Json &request) {
    const std::string &operation = request.at("op").text();
    if (operation == "device") return find_device();
    if (operation == "open") return open(request);
    if (operation == "spin") return spin_loops(request);
    if (operation == "memory") return memory();
    if (operation == "infer") return infer(request);
    if (operation == "explore") return explore(request);
    if (operation == "calibrate") return calibrate(request);
    if (operation == "warm") return warm(request);
    if (operation == "time") return time(request);
    if (operation == "profile") return profile(request);
    throw InputError("a worker has no operation " + quoted(operation));
  }

 private:
  Json open(const Json &request) {
    std::vector<int> cpus; /* before any library starts threads: they inherit it */
    if (const Json &share = request.get("cpus"); share.truthy())
      cpus = share_cpus(share.at("turn").whole(), share.at("count").whole());
    Ort::get().env(); /* before the clock starts: it is not the model's to answer for */
    baseline_ = resident_bytes();
    int64_t start = now_ns();
    loaded_ = std::make_unique<Loaded>(request.at("bundle").text(), load_options(request));
    int64_t load = now_ns() - start;
    example_ = read_example(loaded_->bundle());
    stream_ = open_stream(loaded_->bundle(), example_);
    start = now_ns();
    loaded_->run(example_);
    int64_t first = now_ns() - start;
    loaded_->reset();
    Json::Items placements;
    for (const Placement &placement : loaded_->placements()) placements.push_back(placement.entry());
    Json now = conditions();
    now.set("cpus", list_of(cpus));
    return Json::Members{{"digest", loaded_->bundle().digest}, {"load_ns", load},
                         {"first_ns", first},                  {"placements", placements},
                         {"conditions", now},                  {"baseline_bytes", baseline_},
                         {"peak_bytes", peak_bytes()}};
  }

  Json infer(const Json &request) {
    Answers found = edgewright::infer(*loaded_, arrays_of(request), batch_of(request), limits_of(request));
    const std::string &folder = request.at("folder").text();
    Array exits = zeros(dtype_named("int64"), {static_cast<int64_t>(found.exits.size())});
    std::copy(found.exits.begin(), found.exits.end(), exits.as<int64_t>());
    Json::Items spent;
    for (int64_t ns : found.spent) spent.push_back(static_cast<double>(ns) / 1e6);
    return Json::Members{{"outputs", written(folder, found.outputs)},
                         {"exits", write_array(folder, exits)},
                         {"spent_ms", spent}};
  }

  Json explore(const Json &request) {
    Json::Items stages;
    for (const Arrays &stage : edgewright::explore(*loaded_, arrays_of(request), batch_of(request)))
      stages.push_back(written(request.at("folder").text(), stage));
    return Json::Members{{"stages", stages}};
  }

  Json calibrate(const Json &request) {
    return Json::Members{{"stages", entries_of(loaded_->calibrate(request.at("seconds").real()))}};
  }

  Json warm(const Json &request) {
    Stream given = given_feeds(request);
    Runs runs = runs_of(request, given);
    auto [taken, settled] = warm_up([&] { return runs.once(); }, warm_up_rules(request.get("rules")));
    return Json::Members{{"ns", list_of(taken)}, {"settled", settled}};
  }

  Json time(const Json &request) {
    double least_runs = request.at("least_runs").real(), least_ns = request.at("least_ns").real();
    if (!request.get("deadline_ms").is_null()) loaded_->get_ready();
    Stream given = given_feeds(request);
    Runs before = runs_of(request, given), runs = runs_of(request, given);
    settle([&] { return before.once(); }, real_or_none(request.get("settle_ns")).value_or(0));
    int64_t begin = now_ns();
    Times taken = time_block([&] { return runs.once(); }, least_runs, least_ns);
    int64_t end = now_ns();
    Json::Items stages;
    for (const Times &each : runs.stages()) stages.push_back(list_of(each));
    return Json::Members{{"ns", list_of(taken)},
                         {"depths", list_of(runs.depths())},
                         {"stages_ns", stages},
                         {"begin_ns", begin},
                         {"end_ns", end}};
  }

  Json spin_loops(const Json &request) {
    Json::Items taken;
    double ns = request.at("ns").real();
    for (int64_t left = request.at("runs").whole(); left > 0; left--) taken.push_back(spin(ns));
    return Json::Members{{"ns", taken}};
  }

  Json profile(const Json &request) {
    std::optional<int64_t> stage = whole_or_none(request.get("stage"));
    int64_t runs = request.at("runs").whole(), stages = static_cast<int64_t>(loaded_->pieces().size());
    if (!stage && stages != 1)
      throw InputError("a model of several stages is profiled by operator one stage at a time; say which");
    if (stage && (*stage < 0 || *stage >= stages))
      throw InputError("there is no stage " + std::to_string(*stage) + "; allowed: 0 to " + std::to_string(stages - 1));
    if (runs < 1) throw InputError("a profile of " + std::to_string(runs) + " runs; allowed: 1 and more");
    auto number = static_cast<size_t>(stage.value_or(0));
    Arrays inputs = request.get("inputs").truthy() ? arrays_of(request) : example_;
    std::vector<Array> feeds = loaded_->graph_feeds(inputs, number);
    return Json::Members{{"nodes", loaded_->pieces()[number].session->profile(feeds, runs)}};
  }

  Json memory() const { return Json::Members{{"baseline_bytes", baseline_}, {"peak_bytes", peak_bytes()}}; }

  /* What the request feeds each run with; empty where the bundle's own inputs are to be used. */
  static Stream given_feeds(const Json &request) {
    return request.get("inputs").truthy() ? Stream(arrays_of(request)) : Stream();
  }

  Runs runs_of(const Json &request, Stream &given) {
    std::vector<std::optional<int64_t>> through;
    if (const Json &asked = request.get("through"); asked.truthy())
      for (const Json &stage : asked.items()) through.push_back(whole_or_none(stage));
    if (through.empty()) through.push_back(std::nullopt);
    Stream &feeds = request.get("inputs").truthy() ? given : stream_;
    return {*loaded_, feeds, real_or_none(request.get("deadline_ms")), through};
  }

  std::unique_ptr<Loaded> loaded_;
  Arrays example_;
  Stream stream_;
  Json baseline_;
};

/* What goes wrong unforeseen is told as the runtime's. */
static std::string serve(Worker &worker, const Json &request) {
  const std::string operation = request.get("op").shown();
  try {
    return answer(request, worker.answer(request));
  } catch (const Error &error) {
    return failure(request, error.kind, error.what());
  } catch (const JsonError &error) {
    return failure(request, "InputError", "the request " + operation + " cannot be used: " + error.what());
  } catch (const std::exception &error) {
    return failure(request, "PluginError", "the runtime ort failed in " + operation + ": " + error.what());
  }
}

int work(pid_t parent) {
  die_with_parent(parent);
  auto [source, sink] = private_streams();
  Lines lines(source);
  Worker worker;
  while (std::optional<std::string> line = lines.next())
    if (!send(sink, serve(worker, decode(*line)))) break;
  ::_exit(0); /* libraries are not to tidy up what the system does anyway */
}

}  // namespace edgewright
