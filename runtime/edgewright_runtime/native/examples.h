/* The inputs that a bundle carries to be tried with: one example, or a stream of which each run takes the next. */
#pragma once

#include "arrays.h"
#include "bundle.h"

namespace edgewright {

/* What one run takes, so the first step of it where it holds many. Raises: InputError. */
Arrays read_example(const Bundle &bundle);

/* Inputs without an end: the same each time, or the next rows of a stream, from the start again when all were seen. */
class Stream {
 public:
  Stream() = default;
  explicit Stream(Arrays always) : arrays_(std::move(always)) {}

  /* As many rows at a time as `example` has. Raises: InputError. */
  Stream(Arrays arrays, const Arrays &example);

  Arrays next();

 private:
  Arrays arrays_;
  int64_t rows_ = 0, total_ = 0, start_ = 0;
};

/* The bundle's stream if it carries one, else its example. Raises: InputError. */
Stream open_stream(const Bundle &bundle, const Arrays &example);

}  // namespace edgewright
