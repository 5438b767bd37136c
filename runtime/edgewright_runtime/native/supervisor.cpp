#include "supervisor.h"

#include <signal.h>
#include <unistd.h>

#include <algorithm>
#include <map>
#include <memory>

#include "channel.h"
#include "child.h"
#include "holding.h"
#include "messages.h"

namespace edgewright {

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
    try {
      request = decode(line);
      reply = reply_to(request, line);
    } catch (const Error &error) {
      reply = failure(request, error.kind, error.what());
    }
    const Json &operation = request.get("op");
    return send(sink_, reply) && !(operation.is_text() && operation.text() == "bye");
  }

  std::string reply_to(const Json &request, const std::string &line) {
    const Json &asked = request.get("op");
    const std::string operation = asked.is_text() ? asked.text() : asked.shown();
    if (std::find(OPERATIONS.begin(), OPERATIONS.end(), operation) == OPERATIONS.end())
      throw InputError("the agent has no operation " + quoted(operation) + "; " + suggest(operation, OPERATIONS));
    if (operation == "bye") return answer(request, Json::Members{});
    if (operation == "hello") return hello(request);
    if (operation == "ping") return answer(request, Json::Members{});
    if (operation == "device") return Child().ask(line, operation, requests_);
    if (operation == "open") return open(request, line);
    if (operation == "close") return close(request);
    return ask(request, operation, line);
  }

  std::string hello(const Json &request) {
    const Json &protocol = request.get("protocol");
    if (protocol.shown() != std::to_string(PROTOCOL))
      throw DeviceError("the host speaks protocol " + protocol.shown() + ", the agent " + std::to_string(PROTOCOL) +
                        "; update the older one");
    const Json &lock = request.get("lock"), &owner = request.get("owner"), &idle = request.get("idle_s");
    if (lock.is_text() && lock_ < 0) lock_ = hold(lock.text(), owner.is_text() ? owner.text() : owner.shown());
    idle_ = idle.kind() == Json::Kind::number ? std::optional<double>(idle.real()) : std::nullopt;
    return answer(request, Json::Members{{"protocol", PROTOCOL}, {"pid", ::getpid()}, {"python", ""}});
  }

  std::string open(const Json &request, const std::string &line) {
    const std::string handle = handle_of(request);
    if (workers_.count(handle)) throw InputError("the handle " + quoted(handle) + " is in use; close it first");
    workers_[handle] = std::make_unique<Child>();
    std::string reply = ask(request, "open", line);
    if (!decode(reply).get("error").is_null()) workers_.erase(handle);
    return reply;
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
  int sink_, lock_ = -1;
  std::optional<double> idle_; /* seconds of silence after which the host counts as gone */
  std::map<std::string, std::unique_ptr<Child>> workers_;
};

int supervise() {
  ::signal(SIGINT, SIG_IGN); /* an interrupt is the host's to handle: it ends us by closing our input */
  ::signal(SIGPIPE, SIG_IGN);
  auto [source, sink] = private_streams();
  Supervisor(source, sink).serve();
  return 0;
}

}  // namespace edgewright
