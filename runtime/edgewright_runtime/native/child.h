/* A worker or the poller, seen from the supervisor: our own program, started as another process. */
#pragma once

#include <sys/types.h>

#include <string>

#include "channel.h"

namespace edgewright {

class Child {
 public:
  /* Start it as `role`; it waits for its first request. Errors call it `called`.
   * Raises: DeviceError when it does not start. */
  explicit Child(const char *role = "worker", const char *called = "the process that ran the model");

  /* End it at once: it holds nothing that is worth a tidy exit. */
  ~Child();

  Child(const Child &) = delete;
  Child &operator=(const Child &) = delete;

  pid_t process() const { return process_; }

  /* Its answer to a request. Raises: PluginError when the process ends instead; HostGone when `watched` does. */
  std::string ask(const std::string &line, const std::string &operation, Lines &watched);

 private:
  void close_all();
  std::string epitaph(const std::string &operation);

  const char *called_;
  pid_t process_ = -1;
  int sink_ = -1, errors_ = -1;
  Lines lines_{-1};
};

}  // namespace edgewright
