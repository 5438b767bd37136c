/* A device is one client's at a time: the runner holds a lock there for as long as it lives. */
#pragma once

#include <string>

namespace edgewright {

/* The kernel keeps the lock, so it ends with us, however that is. In the file, for people: the owner; then since when,
 * when last heard, and the seconds of silence after which that client counts as gone. Times are the device's uptime. */
class Lock {
 public:
  /* Nothing when it is held already. Raises: DeviceError when another holds it. */
  void take(const std::string &path, const std::string &owner, double idle);

  /* The client asked for something, or was answered. */
  void heard();

 private:
  void tell(double now);

  int file_ = -1;
  std::string owner_;
  double since_ = 0, told_ = 0, idle_ = 0;
};

}  // namespace edgewright
