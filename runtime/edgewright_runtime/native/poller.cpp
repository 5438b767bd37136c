#include "poller.h"

#include <unistd.h>

#include <algorithm>
#include <cstring>
#include <map>

#include "channel.h"
#include "clock.h"
#include "messages.h"
#include "process.h"
#include "sensors.h"

namespace edgewright {

constexpr int64_t longest_ns = 3600000000000;
constexpr int64_t most_samples = 500000; /* of all rails; then nothing more is read, because memory is the device's */

/* What was read of each rail so far, and when the next reading is due; each rail has a pace of its own. */
class Record {
 public:
  explicit Record(std::vector<Rail> rails)
      : rails_(std::move(rails)), samples_(rails_.size()), missed_(rails_.size()), due_(rails_.size(), begin_) {}

  /* Read what is due. */
  void take(bool everything = false) {
    int64_t now = now_ns();
    std::vector<size_t> numbers;
    std::vector<const Rail *> rails;
    for (size_t number = 0; number < rails_.size(); number++)
      if (everything || due_[number] <= now) numbers.push_back(number), rails.push_back(&rails_[number]);
    std::vector<Reading> readings = read_rails(rails);
    for (size_t i = 0; i < numbers.size(); i++) keep(numbers[i], std::move(readings[i]), now);
    left_ -= static_cast<int64_t>(numbers.size());
  }

  /* Read until a line of `stop` comes, or its end, which gives nothing. */
  std::optional<std::string> run(Lines &stop) {
    for (;;) {
      std::optional<std::string> line = stop.next(wait());
      if (line || stop.ended()) return line;
      take();
    }
  }

  /* The samples, the readings that failed, and the share of one CPU that this process took. */
  Json told() const {
    Json::Items samples, missed;
    for (const std::vector<Reading> &each : samples_) samples.push_back(rows_of(each));
    for (const std::map<int, int64_t> &each : missed_) {
      Json::Members reasons;
      for (const auto &[error, times] : each) reasons.push_back({std::strerror(error), times});
      missed.push_back(reasons);
    }
    double wall = static_cast<double>(std::max<int64_t>(1, now_ns() - begin_));
    double worked = static_cast<double>(read_clock(CLOCK_PROCESS_CPUTIME_ID) - worked_);
    return Json::Members{{"samples", samples}, {"missed", missed}, {"cpu", worked / wall}};
  }

 private:
  static Json rows_of(const std::vector<Reading> &readings) {
    Json::Items rows;
    for (const Reading &reading : readings) {
      Json::Items row{reading.at};
      row.insert(row.end(), reading.values.begin(), reading.values.end());
      rows.push_back(std::move(row));
    }
    return rows;
  }

  void keep(size_t number, Reading reading, int64_t now) {
    if (reading.error)
      missed_[number][reading.error]++;
    else
      samples_[number].push_back(std::move(reading));
    int64_t period = rails_[number].source.period_ns; /* on its grid; what was missed is not caught up with */
    due_[number] = std::max(due_[number], now - period) + period;
  }

  /* Seconds until something is due; nothing when there is no more room. */
  std::optional<double> wait() const {
    if (left_ <= 0) return std::nullopt;
    return static_cast<double>(*std::min_element(due_.begin(), due_.end()) - now_ns()) / 1e9;
  }

  int64_t begin_ = now_ns(), worked_ = read_clock(CLOCK_PROCESS_CPUTIME_ID), left_ = most_samples;
  std::vector<Rail> rails_;
  std::vector<std::vector<Reading>> samples_;
  std::vector<std::map<int, int64_t>> missed_;
  std::vector<int64_t> due_;
};

/* Raises: JsonError, InputError for what states no meter. */
static Rails rails_for(const Json &request) {
  const Json &python = request.get("meter"), &root = request.get("root");
  if (python.truthy())
    return {{},
            {"the meter " + python.text() + " is a Python module, which the native runner cannot run; install Python "
             "on the device, or name another meter with --meter"}};
  Rails rails = find_rails(request.at("sources"), root.truthy() ? root.text() : "");
  for (const Rail &rail : rails.found)
    if (rail.source.period_ns < 1 || rail.source.period_ns > longest_ns)
      throw InputError("a period of " + std::to_string(rail.source.period_ns) + " ns for " + quoted(rail.name) +
                       "; allowed: 1 to an hour");
  return rails;
}

static Json listed(const Rails &rails) {
  Json::Items found;
  for (const Rail &rail : rails.found) found.push_back(rail.described());
  return Json::Members{{"rails", found}, {"absent", Json::Items(rails.absent.begin(), rails.absent.end())}};
}

static void serve(Lines &lines, int sink, const Json &request) {
  Rails rails = rails_for(request);
  Json told = listed(rails);
  Record record(std::move(rails.found));
  record.take(); /* before the host is told: whatever it marks comes after the first sample */
  if (!send(sink, answer(request, told)) || !told.get("rails").truthy()) return;
  if (std::optional<std::string> line = record.run(lines)) {
    record.take(true);
    send(sink, answer(decode(*line), record.told()));
  }
}

int poll_meter(pid_t parent) {
  die_with_parent(parent);
  auto [source, sink] = private_streams();
  Lines lines(source);
  std::optional<std::string> line = lines.next();
  if (!line) return 0;
  Json request = decode(*line);
  try {
    serve(lines, sink, request);
  } catch (const JsonError &error) {
    send(sink, failure(request, "InputError", std::string("the request 'meter' cannot be used: ") + error.what()));
  } catch (const Error &error) {
    send(sink, failure(request, error.kind, error.what()));
  }
  return 0;
}

}  // namespace edgewright
