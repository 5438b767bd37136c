/* Reads .npz: a zip archive whose members are stored as they are (APPNOTE.TXT 4.3, ZIP64 included). */
#include <cerrno>
#include <cstring>

#include "errors.h"
#include "files.h"
#include "npy.h"

namespace edgewright {

constexpr size_t end_size = 22, end64_size = 56, locator_size = 20, entry_size = 46, local_size = 30;
constexpr size_t in_extra = 0xffffffff; /* a size or place that stands in the ZIP64 field instead */

class Zip {
 public:
  Zip(const std::string &data, const std::string &path) : data_(data), path_(path) {}

  Arrays read() {
    size_t end = find_end();
    size_t count = number(end + 10, 2), at = number(end + 16, 4);
    if (at == in_extra || count == 0xffff) {
      size_t place = number(end - locator_size + 8, 8);
      check(place, end64_size);
      count = number(place + 32, 8), at = number(place + 48, 8);
    }
    Arrays arrays;
    for (size_t i = 0; i < count; i++) at = read_entry(at, arrays);
    return arrays;
  }

 private:
  [[noreturn]] void fail(const std::string &why) const {
    throw InputError("the bundle's example input " + path_ + " cannot be read: " + why);
  }

  void check(size_t at, size_t size) const {
    if (at > data_.size() || size > data_.size() - at) fail("the archive is broken");
  }

  size_t number(size_t at, int bytes) const {
    check(at, static_cast<size_t>(bytes));
    size_t value = 0;
    for (int i = bytes; i-- > 0;) value = value << 8 | static_cast<unsigned char>(data_[at + static_cast<size_t>(i)]);
    return value;
  }

  size_t find_end() const {
    size_t at = data_.size() < end_size ? std::string::npos : data_.rfind("PK\5\6", data_.size() - end_size);
    if (at == std::string::npos) fail("it is no .npz archive");
    return at;
  }

  /* Adds the array that a directory entry tells of; returns where the next entry stands. */
  size_t read_entry(size_t at, Arrays &arrays) {
    check(at, entry_size);
    if (data_.compare(at, 4, "PK\1\2") != 0) fail("the archive is broken");
    size_t method = number(at + 10, 2), size = number(at + 20, 4), local = number(at + 42, 4);
    size_t name_size = number(at + 28, 2), extra_size = number(at + 30, 2), comment_size = number(at + 32, 2);
    check(at + entry_size, name_size + extra_size);
    std::string name = data_.substr(at + entry_size, name_size);
    if (method) fail("it is compressed; write it with numpy.savez");
    if (size == in_extra || local == in_extra) read_extra(at, extra_size, size, local);
    size_t begin = local + local_size + number(local + 26, 2) + number(local + 28, 2);
    check(begin, size);
    if (name.size() > 4 && name.compare(name.size() - 4, 4, ".npy") == 0) name.resize(name.size() - 4);
    arrays.emplace_back(name, parse_npy(data_.substr(begin, size), name + " of " + path_));
    return at + entry_size + name_size + extra_size + comment_size;
  }

  /* ZIP64: size as it is, size as stored, place; each stands there only where its short field is full. */
  void read_extra(size_t entry, size_t extra_size, size_t &size, size_t &local) const {
    size_t at = entry + entry_size + number(entry + 28, 2), end = at + extra_size;
    while (at + 4 <= end && number(at, 2) != 1) at += 4 + number(at + 2, 2);
    at += 4;
    if (number(entry + 24, 4) == in_extra) at += 8;
    if (size == in_extra) size = number(at, 8), at += 8;
    if (local == in_extra) local = number(at, 8);
  }

  const std::string &data_, &path_;
};

Arrays read_npz(const std::string &path) {
  std::optional<std::string> data = read_file(path);
  if (!data) throw InputError("the bundle's example input " + path + " cannot be read: " + std::strerror(errno));
  return Zip(*data, path).read();
}

}  // namespace edgewright
