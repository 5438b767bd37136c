/* Arrays of numbers in row-major order, whoever owns their memory. */
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <utility>
#include <vector>

namespace edgewright {

/* A number type by its names: numpy's, that of a .npy file, and ONNX's number for it. */
struct Dtype {
  const char *name;
  const char *descr;
  int onnx;
  size_t size;
};

/* Null for a type that is not among them. */
const Dtype *dtype_named(const std::string &name);
const Dtype *dtype_described(const std::string &descr);
const Dtype *dtype_of_onnx(int number);

using Shape = std::vector<int64_t>;

/* Cheap to copy: copies share the memory. */
struct Array {
  const Dtype *dtype = nullptr;
  Shape shape;
  std::shared_ptr<char> data;

  size_t count() const;
  size_t bytes() const { return count() * dtype->size; }

  /* Bytes of one entry of axis 0. */
  size_t stride() const { return shape.empty() || !shape[0] ? 0 : bytes() / static_cast<size_t>(shape[0]); }

  template <class T>
  T *as() const {
    return reinterpret_cast<T *>(data.get());
  }
};

/* In the order in which they were given. */
using Arrays = std::vector<std::pair<std::string, Array>>;

/* Null where there is none of that name. */
const Array *find(const Arrays &arrays, const std::string &name);

/* As Python shows a shape. */
std::string shown(const Shape &shape);

/* Zeros. Raises: InputError when they are more than memory can hold. */
Array zeros(const Dtype *dtype, const Shape &shape);

/* Entries [begin, end) of axis 0, in the same memory. */
Array slice(const Array &array, int64_t begin, int64_t end);

/* Those entries of axis 0, copied. */
Array gather(const Array &array, const std::vector<int64_t> &rows);

/* Entry `at` of axis 1, copied; axis 1 stays, with a size of 1. */
Array step(const Array &array, int64_t at);

/* Arrays of one shape, of size 1 on axis 1, joined there; copied. */
Array in_time(const std::vector<Array> &parts);

/* Stacked on axis 0, copied. Raises: InputError for `name` when they differ in anything else. */
Array stacked(const std::string &name, const std::vector<Array> &parts);

}  // namespace edgewright
