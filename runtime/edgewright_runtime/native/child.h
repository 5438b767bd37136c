/* One worker process, seen from the supervisor. */
#pragma once

#include <sys/types.h>

#include <string>

#include "channel.h"

namespace edgewright {

class Child {
 public:
  /* Start it; it waits for its first request. Raises: DeviceError when it does not start. */
  Child();

  /* End it at once: it holds nothing that is worth a tidy exit. */
  ~Child();

  Child(const Child &) = delete;
  Child &operator=(const Child &) = delete;

  /* The worker's answer to a request. Raises: PluginError when the process ends instead; HostGone when `watched` does. */
  std::string ask(const std::string &line, const std::string &operation, Lines &watched);

 private:
  std::string epitaph(const std::string &operation);

  pid_t process_ = -1;
  int sink_ = -1, errors_ = -1;
  Lines lines_{-1};
};

}  // namespace edgewright
