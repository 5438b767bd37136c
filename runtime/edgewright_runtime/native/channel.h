/* The two ends of a line protocol over file descriptors, out of reach of libraries that print. */
#pragma once

#include <optional>
#include <string>
#include <utility>

namespace edgewright {

/* The stream that the host speaks on has ended. */
struct HostGone {};

/* Lines read from a descriptor, without a buffer that would hide what is waiting from `poll`. */
class Lines {
 public:
  explicit Lines(int descriptor) : descriptor_(descriptor) {}

  int descriptor() const { return descriptor_; }

  /* Whether the stream has come to its end. */
  bool ended() const { return ended_; }

  /* A whole line that has already arrived, if there is one. */
  std::optional<std::string> take();

  /* Read what is there, waiting for something; false at the end of the stream. */
  bool fill();

  /* The next line, waited for; nothing at the end of the stream, or when nothing comes for so long. */
  std::optional<std::string> next(std::optional<double> seconds = std::nullopt);

 private:
  int descriptor_;
  std::string pending_;
  size_t begin_ = 0, searched_ = 0; /* where the next line begins, and up to where there is no end of it */
  bool ended_ = false;
};

/* The next line of `lines`; nothing when it ends. Raises: HostGone when `watched` ends first. */
std::optional<std::string> wait_for(Lines &lines, Lines &watched);

/* Our standard input and output under numbers of their own: what a library reads from 0 is empty, and what it prints
 * to 1 goes to standard error. */
std::pair<int, int> private_streams();

/* Write all of a line; false when nobody reads it any more. */
bool send(int descriptor, const std::string &line);

}  // namespace edgewright
