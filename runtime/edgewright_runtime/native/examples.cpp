#include "examples.h"

#include "files.h"
#include "npy.h"

namespace edgewright {

Arrays read_example(const Bundle &bundle) {
  return bundle.signature.steps(read_npz(bundle.path + "/example/inputs.npz")).front();
}

Stream open_stream(const Bundle &bundle, const Arrays &example) {
  std::string place = bundle.path + "/example/stream.npz";
  return is_file(place) ? Stream(read_npz(place), example) : Stream(example);
}

/* How many rows one run takes, by the first input that has an axis. */
static int64_t rows_of(const Arrays &arrays) {
  for (const auto &[name, array] : arrays)
    if (!array.shape.empty()) return array.shape[0];
  return 1;
}

Stream::Stream(Arrays arrays, const Arrays &example) : arrays_(std::move(arrays)), rows_(rows_of(example)) {
  for (const auto &[name, array] : arrays_) {
    int64_t length = array.shape.empty() ? 0 : array.shape[0];
    if (!length || (total_ && length != total_))
      throw InputError("a stream has as many rows, one at least, of every input; found " + std::to_string(length) +
                       " of " + name);
    total_ = length;
  }
  if (arrays_.empty()) throw InputError("a stream has as many rows, one at least, of every input; found no input");
}

Arrays Stream::next() {
  if (!total_) return arrays_;
  std::vector<int64_t> where;
  for (int64_t i = 0; i < rows_; i++) where.push_back((start_ + i) % total_);
  start_ = (start_ + rows_) % total_;
  Arrays taken;
  for (const auto &[name, array] : arrays_) taken.emplace_back(name, gather(array, where));
  return taken;
}

}  // namespace edgewright
