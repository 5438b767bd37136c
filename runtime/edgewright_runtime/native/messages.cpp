#include "messages.h"

#include "files.h"

namespace edgewright {

const Names OPERATIONS = {"hello",     "ping", "device", "conditions", "open",    "infer",  "explore",
                          "calibrate", "warm", "time",   "spin",       "profile", "memory", "meter",
                          "rest",      "unmeter", "close", "bye"};

Json decode(const std::string &line) {
  constexpr size_t most_shown = 80;
  try {
    Json message = Json::parse(line);
    if (message.kind() == Json::Kind::object) return message;
  } catch (const JsonError &) {
    /* said below */
  }
  throw DeviceError("expected a message of protocol " + std::to_string(PROTOCOL) + ", found " +
                    quoted(stripped(repaired(line.substr(0, most_shown)))));
}

std::string answer(const Json &request, Json result) {
  return Json(Json::Members{{"id", request.get("id")}, {"result", std::move(result)}}).compact() + "\n";
}

std::string failure(const Json &request, const std::string &kind, const std::string &message) {
  Json error = Json::Members{{"kind", kind}, {"message", repaired(message)}};
  return Json(Json::Members{{"id", request.get("id")}, {"error", error}}).compact() + "\n";
}

}  // namespace edgewright
