#include "supervisor.h"

#include <signal.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <ctime>
#include <map>
#include <memory>

#include "channel.h"
#include "child.h"
#include "circumstances.h"
#include "clock.h"
#include "holding.h"
#include "messages.h"
#include "process.h"

namespace edgewright {

static const char *const POLLER = "the process that reads the meter";

/* Hands each request to the worker it is for, and outlives them all. */
class Supervisor {
 public:
  Supervisor(int source, int sink) : requests_(source), sink_(sink) {}

  void serve() {
    try {
      while (std::optional<std::string> line = requests_.next(idle_))
        if (!serve_one(*line)) return;
    } catch (const HostGone &) {
      /* the workers end with us */
    }
  }

 private:
  /* Whether there is more to serve. */
  bool serve_one(const std::string &line) {
    Json request;
    std::string reply;
    lock_.heard();
    try {
      request = decode(line);
      reply = reply_to(request, line);
    } catch (const Error &error) {
      reply = failure(request, error.kind, error.what());
    } catch (const JsonError &error) {
      reply = failure(request, "InputError", std::string("the request cannot be used: ") + error.what());
    }
    const Json &operation = request.get("op");
    const bool sent = send(sink_, reply);
    lock_.heard();
    return sent && !(operation.is_text() && operation.text() == "bye");
  }

  std::string reply_to(const Json &request, const std::string &line) {
    const Json &asked = request.get("op");
    const std::string operation = asked.is_text() ? asked.text() : asked.shown();
    if (std::find(OPERATIONS.begin(), OPERATIONS.end(), operation) == OPERATIONS.end())
      throw InputError("the agent has no operation " + quoted(operation) + "; " + suggest(operation, OPERATIONS));
    if (operation == "bye") return answer(request, Json::Members{});
    if (operation == "hello") return hello(request);
    if (operation == "ping") return answer(request, Json::Members{});
    if (operation == "conditions") return conditions_of(request);
    if (operation == "device") return Child().ask(line, operation, requests_);
    if (operation == "open") return open(request, line);
    if (operation == "close") return close(request);
    if (operation == "meter") return meter(line);
    if (operation == "rest") return rest(request);
    if (operation == "unmeter") return unmeter(line);
    return ask(request, operation, line);
  }

  std::string conditions_of(const Json &request) {
    const Json &root = request.get("root");
    return answer(request, conditions(root.truthy() ? root.text() : ""));
  }

  std::string hello(const Json &request) {
    const Json &protocol = request.get("protocol");
    if (protocol.shown() != std::to_string(PROTOCOL))
      throw DeviceError("the host speaks protocol " + protocol.shown() + ", the agent " + std::to_string(PROTOCOL) +
                        "; update the older one");
    const Json &lock = request.get("lock"), &owner = request.get("owner"), &idle = request.get("idle_s");
    idle_ = idle.kind() == Json::Kind::number ? std::optional<double>(idle.real()) : std::nullopt;
    if (lock.is_text()) lock_.take(lock.text(), owner.is_text() ? owner.text() : owner.shown(), idle_.value_or(0));
    return answer(request, Json::Members{{"protocol", PROTOCOL}, {"pid", ::getpid()}, {"python", ""}});
  }

  std::string open(const Json &request, const std::string &line) {
    const std::string handle = handle_of(request);
    if (workers_.count(handle)) throw InputError("the handle " + quoted(handle) + " is in use; close it first");
    workers_[handle] = std::make_unique<Child>();
    std::string reply = ask(request, "open", line);
    if (!decode(reply).get("error").is_null())
      workers_.erase(handle);
    else if (poller_)
      keep_away(poller_->process(), workers_[handle]->process());
    return reply;
  }

  /* Start to read a meter; nothing goes on when no rail of it is found. */
  std::string meter(const std::string &line) {
    poller_ = std::make_unique<Child>("poll", POLLER);
    std::string reply = ask_poller(line, "meter");
    if (!decode(reply).get("result").get("rails").truthy()) poller_.reset();
    return reply;
  }

  std::string unmeter(const std::string &line) {
    if (!poller_) throw InputError("no meter is being read; start with 'meter'");
    std::string reply = ask_poller(line, "unmeter");
    poller_.reset();
    return reply;
  }

  std::string ask_poller(const std::string &line, const std::string &operation) {
    try {
      return poller_->ask(line, operation, requests_);
    } catch (const PluginError &) {
      poller_.reset();
      throw;
    }
  }

  /* Do nothing for so long, or keep one core at work. */
  static std::string rest(const Json &request) {
    constexpr double longest = 3.6e12;
    double ns = request.at("ns").real();
    if (!(ns >= 0 && ns <= longest)) throw InputError("a rest of " + shortest(ns) + " ns; allowed: 0 to an hour");
    int64_t begin = now_ns(), end = begin + static_cast<int64_t>(ns);
    struct timespec until = {static_cast<time_t>(end / 1000000000), static_cast<long>(end % 1000000000)};
    const bool busy = request.get("busy").truthy();
    while (!busy && ::clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &until, nullptr) == EINTR) {
    }
    while (now_ns() < end) {
    }
    return answer(request, Json::Members{{"begin_ns", begin}, {"end_ns", now_ns()}});
  }

  std::string close(const Json &request) {
    workers_.erase(handle_of(request)); /* a worker that crashed is gone already */
    return answer(request, Json::Members{});
  }

  std::string ask(const Json &request, const std::string &operation, const std::string &line) {
    const std::string handle = handle_of(request);
    auto worker = workers_.find(handle);
    if (worker == workers_.end()) {
      Names open;
      for (const auto &[name, child] : workers_) open.push_back(name);
      throw InputError("nothing is open under the handle " + quoted(handle) + "; " + suggest(handle, open));
    }
    try {
      return worker->second->ask(line, operation, requests_);
    } catch (const PluginError &) {
      workers_.erase(handle);
      throw;
    }
  }

  static std::string handle_of(const Json &request) {
    const Json &handle = request.get("handle");
    return handle.is_text() ? handle.text() : handle.shown();
  }

  Lines requests_;
  int sink_;
  Lock lock_;
  std::optional<double> idle_; /* seconds of silence after which the host counts as gone */
  std::map<std::string, std::unique_ptr<Child>> workers_;
  std::unique_ptr<Child> poller_; /* while a meter is read */
};

int supervise() {
  ::signal(SIGINT, SIG_IGN); /* an interrupt is the host's to handle: it ends us by closing our input */
  ::signal(SIGPIPE, SIG_IGN);
  auto [source, sink] = private_streams();
  Supervisor(source, sink).serve();
  return 0;
}

}  // namespace edgewright
