#include "holding.h"

#include <fcntl.h>
#include <sys/file.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cmath>
#include <cstring>
#include <sstream>

#include "clock.h"
#include "errors.h"
#include "files.h"
#include "json.h"

namespace edgewright {

constexpr double tell_s = 10; /* how old what is told may be: the file may lie on a card that wears out */

/* Seconds since the device was switched on, those that it slept too. */
static double uptime() { return static_cast<double>(read_clock(CLOCK_BOOTTIME)) / 1e9; }

static std::string whole(double seconds) { return std::to_string(std::lround(std::max(0.0, seconds))); }

/* What the file says of who holds the device, for the next client. */
static std::string holder(const std::string &said, double now) {
  const size_t end = said.find('\n');
  const std::string owner = repaired(stripped(said.substr(0, end)));
  if (owner.empty()) return "another client";
  double since, heard, idle;
  std::istringstream times(end == std::string::npos ? "" : said.substr(end));
  if (!(times >> since >> heard >> idle)) return owner;
  const std::string came = owner + "; it came " + whole(now - since) + " s ago";
  const double silent = std::max(0.0, now - heard);
  if (idle <= 0) return came;
  if (silent < idle) return came + ", and loses the device in " + whole(idle - silent) + " s unless it is heard again";
  return came + ", and its last request has been worked on for " + whole(silent) + " s";
}

void Lock::take(const std::string &path, const std::string &owner, double idle) {
  if (file_ >= 0) return;
  const int file = ::open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0666);
  if (file < 0) throw DeviceError("the lock " + path + " cannot be opened: " + std::strerror(errno));
  if (::flock(file, LOCK_EX | LOCK_NB)) {
    const std::string said = read_or_empty(path);
    ::close(file);
    throw DeviceError("the device is in use by " + holder(said, uptime()) + "; wait for its end, or end that process");
  }
  file_ = file, owner_ = owner, idle_ = idle, since_ = uptime();
  tell(since_);
}

void Lock::heard() {
  const double now = uptime();
  if (file_ >= 0 && now - told_ >= tell_s) tell(now);
}

void Lock::tell(double now) {
  told_ = now;
  const std::string text = owner_ + "\n" + whole(since_) + " " + whole(now) + " " + whole(idle_) + "\n";
  if (::pwrite(file_, text.data(), text.size(), 0) != static_cast<ssize_t>(text.size()) ||
      ::ftruncate(file_, static_cast<off_t>(text.size())))
    throw DeviceError(std::string("the lock cannot be written: ") + std::strerror(errno));
}

}  // namespace edgewright
