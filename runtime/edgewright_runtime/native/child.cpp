#include "child.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <climits>
#include <cstring>

#include "errors.h"
#include "files.h"
#include "json.h"

namespace edgewright {

/* A file without a name for what a worker says on standard error; a phone has no /tmp. */
static int nameless_file() {
  constexpr unsigned close_on_exec = 1; /* MFD_CLOEXEC, which old C libraries do not name */
  auto file = static_cast<int>(::syscall(SYS_memfd_create, "errors", close_on_exec));
  return file >= 0 ? file : ::open("/dev/null", O_RDWR | O_CLOEXEC);
}

static std::string own_program() {
  char program[PATH_MAX];
  ssize_t size = ::readlink("/proc/self/exe", program, sizeof program);
  return size > 0 ? std::string(program, static_cast<size_t>(size)) : "/proc/self/exe";
}

Child::Child(const char *role, const char *called) : called_(called), errors_(nameless_file()) {
  int in[2] = {-1, -1}, out[2] = {-1, -1};
  const std::string program = own_program(), parent = std::to_string(::getpid());
  if (::pipe2(in, O_CLOEXEC) == 0 && ::pipe2(out, O_CLOEXEC) == 0) process_ = ::fork();
  if (process_ == 0) {
    ::dup2(in[0], 0), ::dup2(out[1], 1), ::dup2(errors_, 2);
    ::signal(SIGPIPE, SIG_DFL);
    ::execl(program.c_str(), program.c_str(), role, parent.c_str(), static_cast<char *>(nullptr));
    ::_exit(127);
  }
  int reason = errno;
  ::close(in[0]), ::close(out[1]);
  sink_ = in[1], lines_ = Lines(out[0]);
  if (process_ > 0) return;
  close_all();
  throw DeviceError(std::string("no process can be started: ") + std::strerror(reason));
}

void Child::close_all() {
  for (int descriptor : {sink_, lines_.descriptor(), errors_}) ::close(descriptor);
}

Child::~Child() {
  if (process_ > 0) {
    ::kill(process_, SIGKILL);
    ::waitpid(process_, nullptr, 0);
  }
  close_all();
}

std::string Child::ask(const std::string &line, const std::string &operation, Lines &watched) {
  if (send(sink_, line + "\n"))
    if (std::optional<std::string> reply = wait_for(lines_, watched)) return *reply + "\n";
  throw PluginError(epitaph(operation));
}

/* ------------------------------------------------------------------ how it ended */

/* Number, name, and what is usually behind it. */
static std::string signal_named(int number) {
  struct Named {
    int number;
    const char *name, *hint;
  };
  static const Named all[] = {{SIGKILL, "SIGKILL", " (the system may have run out of memory)"},
                              {SIGILL, "SIGILL", " (the runtime may be built for another processor)"},
                              {SIGSEGV, "SIGSEGV", " (the runtime crashed)"},
                              {SIGABRT, "SIGABRT", " (the runtime gave up)"},
                              {SIGBUS, "SIGBUS", ""},
                              {SIGFPE, "SIGFPE", ""},
                              {SIGTERM, "SIGTERM", ""}};
  for (const Named &each : all)
    if (each.number == number) return std::string(each.name) + each.hint;
  return "signal " + std::to_string(number);
}

static std::string last_line(int errors) {
  constexpr off_t most = 2000;
  constexpr size_t most_shown = 200;
  char said[most];
  off_t size = ::lseek(errors, 0, SEEK_END);
  ssize_t got = ::pread(errors, said, most, std::max<off_t>(0, size - most));
  std::string text = stripped(std::string(said, got > 0 ? static_cast<size_t>(got) : 0));
  return repaired(text.substr(text.rfind('\n') + 1).substr(0, most_shown));
}

std::string Child::epitaph(const std::string &operation) {
  int status = 0;
  ::waitpid(process_, &status, 0);
  process_ = -1;
  std::string cause = WIFSIGNALED(status) ? "was ended by " + signal_named(WTERMSIG(status))
                                          : "ended with exit status " + std::to_string(WEXITSTATUS(status));
  std::string said = last_line(errors_);
  return std::string(called_) + " " + cause + " during " + quoted(operation) +
         (said.empty() ? "" : "; it last said: " + said);
}

}  // namespace edgewright
