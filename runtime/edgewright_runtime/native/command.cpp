#include "command.h"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <vector>

#include "clock.h"

namespace edgewright {

constexpr int64_t most_ns = 2000000000;
constexpr size_t most_said = 16384; /* a search in more would take more stack than there is */

/* In the child: becomes the program, or ends with the reason. */
[[noreturn]] static void become(char *const *words, int out) {
  int nothing = ::open("/dev/null", O_RDWR | O_CLOEXEC);
  ::dup2(nothing, 0), ::dup2(out, 1), ::dup2(nothing, 2);
  ::signal(SIGPIPE, SIG_DFL);
  ::execvp(words[0], words);
  ::_exit(127);
}

/* Takes what comes until the end, or until it is too late. */
static bool drain(int descriptor, std::string &said) {
  char data[4096];
  for (int64_t end = now_ns() + most_ns;;) {
    int64_t left = end - now_ns();
    struct pollfd one = {descriptor, POLLIN, 0};
    int found = left > 0 ? ::poll(&one, 1, static_cast<int>(left / 1000000) + 1) : 0;
    if (found < 0 && errno == EINTR) continue;
    if (found <= 0) return false;
    ssize_t got = ::read(descriptor, data, sizeof data);
    if (got < 0 && errno == EINTR) continue;
    if (got <= 0) return true;
    said.append(data, std::min(static_cast<size_t>(got), most_said - said.size()));
  }
}

int command_output(const Names &argv, std::string &said) {
  std::vector<char *> words;
  for (const std::string &word : argv) words.push_back(const_cast<char *>(word.c_str()));
  words.push_back(nullptr);
  int out[2], status = 0;
  if (::pipe2(out, O_CLOEXEC)) return errno;
  pid_t process = ::fork();
  if (process == 0) become(words.data(), out[1]);
  int reason = errno;
  ::close(out[1]);
  bool ended = process > 0 && drain(out[0], said);
  ::close(out[0]);
  if (process < 0) return reason;
  if (!ended) ::kill(process, SIGKILL);
  while (::waitpid(process, &status, 0) < 0 && errno == EINTR) {
  }
  if (!ended) return ETIMEDOUT;
  if (WIFEXITED(status) && WEXITSTATUS(status) == 127) return ENOENT;
  return WIFEXITED(status) && WEXITSTATUS(status) == 0 ? 0 : EIO;
}

}  // namespace edgewright
