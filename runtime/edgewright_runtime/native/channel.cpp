#include "channel.h"

#include <fcntl.h>
#include <poll.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <ctime>

#include "files.h"

namespace edgewright {

std::optional<std::string> Lines::take() {
  size_t end = pending_.find('\n', searched_);
  if (end == std::string::npos) {
    searched_ = pending_.size();
    return std::nullopt;
  }
  std::string line = pending_.substr(begin_, end - begin_);
  begin_ = searched_ = end + 1;
  return line;
}

bool Lines::fill() {
  char data[1 << 16];
  ssize_t got = 0;
  do got = ::read(descriptor_, data, sizeof data);
  while (got < 0 && errno == EINTR);
  pending_.erase(0, begin_); /* lines that were taken */
  searched_ -= begin_, begin_ = 0;
  if (got > 0) pending_.append(data, static_cast<size_t>(got));
  ended_ = got <= 0;
  return got > 0;
}

/* Whether something, or the end, arrives in time. */
static bool arrives(int descriptor, std::optional<double> seconds) {
  constexpr double longest = 1e6; /* eleven days; what is no number counts as 0 */
  struct pollfd one = {descriptor, POLLIN, 0};
  double waited = seconds && *seconds > 0 ? std::min(*seconds, longest) : 0;
  auto whole = static_cast<time_t>(waited);
  struct timespec limit = {whole, static_cast<long>((waited - static_cast<double>(whole)) * 1e9)};
  int found = 0;
  do found = ::ppoll(&one, 1, seconds ? &limit : nullptr, nullptr);
  while (found < 0 && errno == EINTR);
  return found > 0;
}

std::optional<std::string> Lines::next(std::optional<double> seconds) {
  for (;;) {
    if (std::optional<std::string> line = take()) return line;
    if (ended_ || !arrives(descriptor_, seconds) || !fill()) return std::nullopt;
  }
}

std::optional<std::string> wait_for(Lines &lines, Lines &watched) {
  for (;;) {
    if (std::optional<std::string> line = lines.take()) return line;
    struct pollfd both[] = {{lines.descriptor(), POLLIN, 0}, {watched.descriptor(), POLLIN, 0}};
    if (::poll(both, 2, -1) < 0) continue;
    if (both[1].revents && !watched.fill()) throw HostGone();
    if (both[0].revents && !lines.fill()) return std::nullopt;
  }
}

std::pair<int, int> private_streams() {
  int source = ::fcntl(0, F_DUPFD_CLOEXEC, 3), sink = ::fcntl(1, F_DUPFD_CLOEXEC, 3);
  int nothing = ::open("/dev/null", O_RDONLY | O_CLOEXEC);
  ::dup2(nothing, 0);
  ::close(nothing);
  ::dup2(2, 1);
  return {source, sink};
}

bool send(int descriptor, const std::string &line) { return write_all(descriptor, line); }

}  // namespace edgewright
