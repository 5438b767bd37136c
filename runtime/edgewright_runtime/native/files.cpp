#include "files.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <climits>
#include <cstdio>
#include <cstdlib>

#include "sha256.h"

namespace edgewright {

bool is_file(const std::string &path) {
  struct stat about;
  return ::stat(path.c_str(), &about) == 0 && S_ISREG(about.st_mode);
}

bool is_folder(const std::string &path) {
  struct stat about;
  return ::stat(path.c_str(), &about) == 0 && S_ISDIR(about.st_mode);
}

/* Hands a file's bytes to `take`, a piece at a time; false where it cannot be read. */
template <class Take>
static bool each_piece(const std::string &path, Take take) {
  int file = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (file < 0) return false;
  static char buffer[1 << 16];
  ssize_t got = 0;
  while ((got = ::read(file, buffer, sizeof buffer)) > 0 || (got < 0 && errno == EINTR))
    if (got > 0) take(buffer, static_cast<size_t>(got));
  int reason = errno;
  ::close(file);
  errno = reason;
  return got == 0;
}

std::optional<std::string> read_file(const std::string &path) {
  std::string content;
  if (!each_piece(path, [&](const char *data, size_t size) { content.append(data, size); })) return std::nullopt;
  return content;
}

std::string read_or_empty(const std::string &path) { return read_file(path).value_or(""); }

std::optional<std::string> file_digest(const std::string &path) {
  Sha256 sha;
  if (!each_piece(path, [&](const char *data, size_t size) { sha.add(data, size); })) return std::nullopt;
  return sha.hex();
}

static bool make_folders(const std::string &path) {
  if (path.empty() || is_folder(path)) return true;
  return make_folders(folder_of(path)) && (::mkdir(path.c_str(), 0777) == 0 || errno == EEXIST);
}

bool write_all(int file, const std::string &content) {
  for (size_t done = 0; done < content.size();) {
    ssize_t put = ::write(file, content.data() + done, content.size() - done);
    if (put < 0 && errno != EINTR) return false;
    if (put > 0) done += static_cast<size_t>(put);
  }
  return true;
}

bool write_file(const std::string &path, const std::string &content) {
  std::string folder = folder_of(path);
  std::string partial = folder + "/." + name_of(path) + "." + std::to_string(::getpid());
  if (!make_folders(folder)) return false;
  int file = ::open(partial.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
  if (file < 0) return false;
  bool written = write_all(file, content);
  written = ::close(file) == 0 && written;
  if (written && std::rename(partial.c_str(), path.c_str()) == 0) return true;
  int reason = errno;
  ::unlink(partial.c_str());
  errno = reason;
  return false;
}

std::string absolute(const std::string &path) {
  char folder[PATH_MAX];
  if (!path.empty() && path[0] == '/') return path;
  return ::getcwd(folder, sizeof folder) ? std::string(folder) + "/" + path : path;
}

std::string name_of(const std::string &path) { return path.substr(path.rfind('/') + 1); }

std::string folder_of(const std::string &path) {
  size_t slash = path.rfind('/');
  if (slash == std::string::npos) return ".";
  return slash ? path.substr(0, slash) : "/";
}

std::string stripped(const std::string &text, const std::string &dropped) {
  size_t begin = text.find_first_not_of(dropped);
  return begin == std::string::npos ? "" : text.substr(begin, text.find_last_not_of(dropped) - begin + 1);
}

std::string setting(const char *name) {
  const char *value = std::getenv(name);
  return value ? value : "";
}

}  // namespace edgewright
