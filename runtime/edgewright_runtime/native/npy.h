/* Arrays in files: .npy as numpy writes it, named by content, and .npz archives of them. */
#pragma once

#include <string>

#include "arrays.h"

namespace edgewright {

/* The array in the bytes of a .npy file. Raises: InputError for what is none, and for types that are not read:
 * objects, big-endian numbers, column-major order. `place` is how errors call it. */
Array parse_npy(const std::string &data, const std::string &place);

/* Byte for byte what numpy would write. */
std::string format_npy(const Array &array);

/* An array named by its digest. Raises: DeviceError when it is missing or not what its name says; InputError. */
Array read_array(const std::string &path);

/* Keep an array in `folder` as `<sha-256>.npy`; returns its place. Raises: DeviceError when it cannot be written. */
std::string write_array(const std::string &folder, const Array &array);

/* The arrays of an .npz that is not compressed, in its order. Raises: InputError. */
Arrays read_npz(const std::string &path);

}  // namespace edgewright
