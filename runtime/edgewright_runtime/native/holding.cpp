#include "holding.h"

#include <fcntl.h>
#include <sys/file.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

#include "errors.h"
#include "files.h"
#include "json.h"

namespace edgewright {

int hold(const std::string &path, const std::string &owner) {
  int file = ::open(path.c_str(), O_RDWR | O_APPEND | O_CREAT | O_CLOEXEC, 0666);
  if (file < 0) throw DeviceError("the lock " + path + " cannot be opened: " + std::strerror(errno));
  if (::flock(file, LOCK_EX | LOCK_NB)) {
    std::string holder = repaired(stripped(read_or_empty(path)));
    ::close(file);
    throw DeviceError("the device is in use by " + (holder.empty() ? "another client" : holder) +
                      "; wait for its end, or end that process");
  }
  if (::ftruncate(file, 0) == 0 && write_all(file, owner)) return file;
  int reason = errno;
  ::close(file);
  throw DeviceError("the lock " + path + " cannot be written: " + std::strerror(reason));
}

}  // namespace edgewright
