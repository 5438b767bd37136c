#include "arrays.h"

#include <algorithm>
#include <cstdlib>
#include <cstring>

#include "errors.h"

namespace edgewright {

static const Dtype DTYPES[] = {
    {"float32", "<f4", 1, 4}, {"uint8", "|u1", 2, 1},  {"int8", "|i1", 3, 1},     {"uint16", "<u2", 4, 2},
    {"int16", "<i2", 5, 2},   {"int32", "<i4", 6, 4},  {"int64", "<i8", 7, 8},    {"bool", "|b1", 9, 1},
    {"float16", "<f2", 10, 2}, {"float64", "<f8", 11, 8}, {"uint32", "<u4", 12, 4}, {"uint64", "<u8", 13, 8},
};

template <class Test>
static const Dtype *first(Test test) {
  auto found = std::find_if(std::begin(DTYPES), std::end(DTYPES), test);
  return found == std::end(DTYPES) ? nullptr : found;
}

const Dtype *dtype_named(const std::string &name) {
  return first([&](const Dtype &each) { return name == each.name; });
}

const Dtype *dtype_described(const std::string &descr) {
  return first([&](const Dtype &each) { return descr == each.descr; });
}

const Dtype *dtype_of_onnx(int number) {
  return first([&](const Dtype &each) { return number == each.onnx; });
}

size_t Array::count() const {
  size_t count = 1;
  for (int64_t size : shape) count *= static_cast<size_t>(size);
  return count;
}

const Array *find(const Arrays &arrays, const std::string &name) {
  for (const auto &[key, array] : arrays)
    if (key == name) return &array;
  return nullptr;
}

std::string shown(const Shape &shape) {
  Names sizes;
  for (int64_t size : shape) sizes.push_back(std::to_string(size));
  return "[" + joined(sizes) + "]";
}

/* Aligned to cache lines, as vector code likes it; never null, even for no bytes. */
static std::shared_ptr<char> memory(size_t bytes) {
  constexpr size_t line = 64;
  void *place = nullptr;
  if (posix_memalign(&place, line, std::max(bytes, line))) throw InputError("no memory is left for an array");
  return {static_cast<char *>(place), std::free};
}

static Array make(const Dtype *dtype, const Shape &shape) {
  size_t bytes = dtype->size;
  for (int64_t size : shape)
    if (size < 0 || __builtin_mul_overflow(bytes, static_cast<size_t>(size), &bytes) || bytes > SIZE_MAX / 2)
      throw InputError("an array of shape " + shown(shape) + " does not fit into memory");
  return {dtype, shape, memory(bytes)};
}

Array zeros(const Dtype *dtype, const Shape &shape) {
  Array array = make(dtype, shape);
  std::memset(array.data.get(), 0, array.bytes());
  return array;
}

Array slice(const Array &array, int64_t begin, int64_t end) {
  Array part = array;
  part.shape[0] = end - begin;
  part.data = std::shared_ptr<char>(array.data, array.data.get() + static_cast<size_t>(begin) * array.stride());
  return part;
}

Array gather(const Array &array, const std::vector<int64_t> &rows) {
  Shape shape = array.shape;
  shape[0] = static_cast<int64_t>(rows.size());
  Array taken = make(array.dtype, shape);
  size_t stride = array.stride();
  char *to = taken.data.get();
  for (int64_t row : rows) {
    std::memcpy(to, array.data.get() + static_cast<size_t>(row) * stride, stride);
    to += stride;
  }
  return taken;
}

Array step(const Array &array, int64_t at) {
  Shape shape = array.shape;
  shape[1] = 1;
  Array one = make(array.dtype, shape);
  size_t bytes = array.stride() / static_cast<size_t>(array.shape[1]);
  for (size_t row = 0; row < static_cast<size_t>(shape[0]); row++)
    std::memcpy(one.data.get() + row * bytes, array.data.get() + row * array.stride() + static_cast<size_t>(at) * bytes,
                bytes);
  return one;
}

Array in_time(const std::vector<Array> &parts) {
  Shape shape = parts.front().shape;
  shape[1] = static_cast<int64_t>(parts.size());
  Array all = make(parts.front().dtype, shape);
  char *to = all.data.get();
  for (size_t row = 0; row < static_cast<size_t>(shape[0]); row++)
    for (const Array &part : parts) {
      std::memcpy(to, part.data.get() + row * part.stride(), part.stride());
      to += part.stride();
    }
  return all;
}

Array stacked(const std::string &name, const std::vector<Array> &parts) {
  Shape shape = parts.front().shape;
  shape[0] = 0;
  for (const Array &part : parts) {
    bool alike = part.dtype == parts.front().dtype && part.shape.size() == shape.size() &&
                 std::equal(shape.begin() + 1, shape.end(), part.shape.begin() + 1);
    if (!alike)
      throw InputError("the output " + name + " changes its shape from example to example: " +
                       shown(parts.front().shape) + " and " + shown(part.shape));
    shape[0] += part.shape[0];
  }
  Array all = make(parts.front().dtype, shape);
  char *to = all.data.get();
  for (const Array &part : parts) {
    std::memcpy(to, part.data.get(), part.bytes());
    to += part.bytes();
  }
  return all;
}

}  // namespace edgewright
