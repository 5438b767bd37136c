/* The native runner: the agent of docs/agent.md for devices without Python. */
#include <cstdlib>
#include <string>

#include "poller.h"
#include "setup.h"
#include "supervisor.h"
#include "worker.h"

int main(int count, char **arguments) {
  const std::string role = count > 1 ? arguments[1] : "";
  if (role == "worker" && count == 3) return edgewright::work(std::atoi(arguments[2]));
  if (role == "poll" && count == 3) return edgewright::poll_meter(std::atoi(arguments[2]));
  if (role == "probe") return edgewright::probe();
  if (role == "place" && count == 4) return edgewright::place(arguments[2], arguments[3]);
  return edgewright::supervise();
}
