#include "npy.h"

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "errors.h"
#include "files.h"
#include "sha256.h"

namespace edgewright {

static const std::string MAGIC = "\x93NUMPY";

/* ------------------------------------------------------------------ the header */

/* Reads a header: the literal of a Python dictionary with three known keys. */
class HeaderReader {
 public:
  HeaderReader(const std::string &text, const std::string &place) : text_(text), place_(place) {}

  Array read() {
    Array array;
    bool shaped = false, ordered = false;
    expect('{');
    while (!take('}')) {
      std::string key = read_word();
      expect(':');
      if (key == "descr")
        array.dtype = read_dtype();
      else if (key == "fortran_order")
        ordered = true, read_order();
      else if (key == "shape")
        shaped = true, array.shape = read_shape();
      else
        fail("its header has the key " + quoted(key));
      if (!take(',') && peek() != '}') fail("its header is broken");
    }
    if (!array.dtype || !ordered || !shaped) fail("its header says too little");
    return array;
  }

 private:
  [[noreturn]] void fail(const std::string &why) const {
    throw InputError("the array " + place_ + " cannot be read: " + why);
  }

  char peek() {
    while (at_ < text_.size() && std::strchr(" \t\r\n", text_[at_])) at_++;
    return at_ < text_.size() ? text_[at_] : '\0';
  }

  bool take(char wanted) {
    if (peek() != wanted) return false;
    at_++;
    return true;
  }

  void expect(char wanted) {
    if (!take(wanted)) fail("its header is broken");
  }

  std::string read_word() {
    char quote = peek();
    if (quote != '\'' && quote != '"') fail("its header is broken");
    size_t end = text_.find(quote, at_ + 1);
    if (end == std::string::npos) fail("its header is broken");
    std::string word = text_.substr(at_ + 1, end - at_ - 1);
    at_ = end + 1;
    return word;
  }

  const Dtype *read_dtype() {
    if (peek() == '[') fail("it has fields; numbers of one type are read");
    std::string descr = read_word();
    const Dtype *dtype = dtype_described(descr);
    if (!dtype) fail("its number type " + quoted(descr) + " is not read; allowed: booleans, integers, little-endian floats");
    return dtype;
  }

  void read_order() {
    peek();
    if (text_.compare(at_, 5, "False") != 0) fail("it is stored column by column; store it row by row");
    at_ += 5;
  }

  Shape read_shape() {
    Shape shape;
    expect('(');
    while (!take(')')) {
      shape.push_back(read_size());
      if (!take(',') && peek() != ')') fail("its shape is broken");
    }
    return shape;
  }

  int64_t read_size() {
    int64_t size = 0;
    if (peek() < '0' || peek() > '9') fail("its shape is broken");
    for (; at_ < text_.size() && text_[at_] >= '0' && text_[at_] <= '9'; at_++)
      if (__builtin_mul_overflow(size, int64_t{10}, &size) || __builtin_add_overflow(size, text_[at_] - '0', &size))
        fail("its shape is beyond what memory can hold");
    return size;
  }

  const std::string &text_, &place_;
  size_t at_ = 0;
};

/* ------------------------------------------------------------------ a file */

static size_t little_endian(const std::string &data, size_t at, int bytes) {
  size_t value = 0;
  for (int i = bytes; i-- > 0;) value = value << 8 | static_cast<unsigned char>(data[at + static_cast<size_t>(i)]);
  return value;
}

Array parse_npy(const std::string &data, const std::string &place) {
  auto fail = [&](const std::string &why) -> InputError {
    return InputError("the array " + place + " cannot be read: " + why);
  };
  if (data.compare(0, MAGIC.size(), MAGIC) != 0 || data.size() < 12) throw fail("it is no .npy file");
  int version = data[6], wide = version == 1 ? 2 : 4;
  if (version < 1 || version > 3) throw fail("its .npy version is unknown");
  size_t begin = 8 + static_cast<size_t>(wide), length = little_endian(data, 8, wide);
  if (length > data.size() - begin) throw fail("it ends within its header");
  Array described = HeaderReader(data.substr(begin, length), place).read();
  size_t wanted = described.dtype->size, held = data.size() - begin - length;
  for (int64_t size : described.shape)
    if (__builtin_mul_overflow(wanted, static_cast<size_t>(size), &wanted)) throw fail("its shape is beyond memory");
  if (wanted > held)
    throw fail("it should hold " + std::to_string(wanted) + " bytes of numbers and holds " + std::to_string(held));
  Array array = zeros(described.dtype, described.shape);
  std::memcpy(array.data.get(), data.data() + begin + length, array.bytes());
  return array;
}

std::string format_npy(const Array &array) {
  constexpr size_t alignment = 64, most_digits = 21; /* numpy leaves room for a first axis that grows */
  Names sizes;
  for (int64_t size : array.shape) sizes.push_back(std::to_string(size));
  std::string shape = "(" + joined(sizes) + (sizes.size() == 1 ? ",)" : ")");
  std::string header = std::string("{'descr': '") + array.dtype->descr + "', 'fortran_order': False, 'shape': " + shape;
  header += ", }";
  if (!sizes.empty()) header.append(most_digits - sizes.front().size(), ' ');
  size_t prefix = MAGIC.size() + 4, unpadded = prefix + header.size() + 1;
  header.append(alignment - unpadded % alignment, ' ');
  header += '\n';
  std::string data = MAGIC + std::string("\x01\x00", 2);
  data += static_cast<char>(header.size() & 0xff);
  data += static_cast<char>(header.size() >> 8);
  return data + header + std::string(array.data.get(), array.bytes());
}

Array read_array(const std::string &path) {
  std::optional<std::string> data = read_file(path);
  if (!data) throw DeviceError("the array " + path + " cannot be read: " + std::strerror(errno));
  std::string name = name_of(path), stem = name.substr(0, name.rfind('.'));
  if (sha256(*data) != stem)
    throw DeviceError("the array " + path + " was changed on its way (its digest does not match)");
  return parse_npy(*data, path);
}

std::string write_array(const std::string &folder, const Array &array) {
  std::string data = format_npy(array), place = folder + "/" + sha256(data) + ".npy";
  if (!is_file(place) && !write_file(place, data))
    throw DeviceError("the array " + place + " cannot be written: " + std::strerror(errno));
  return place;
}

}  // namespace edgewright
