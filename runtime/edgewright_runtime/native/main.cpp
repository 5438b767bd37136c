/* The native runner: the agent of docs/agent.md for devices without Python. */
#include <cstdlib>
#include <cstring>

#include "supervisor.h"
#include "worker.h"

int main(int count, char **arguments) {
  if (count == 3 && !std::strcmp(arguments[1], "worker")) return edgewright::work(std::atoi(arguments[2]));
  return edgewright::supervise();
}
