#include "feeds.h"

namespace edgewright {

bool Port::accepts(const Array &array) const {
  if (array.dtype != dtype || array.shape.size() != spec.shape.size()) return false;
  for (size_t i = 0; i < spec.shape.size(); i++)
    if (!spec.shape[i].free && spec.shape[i].size != array.shape[i]) return false;
  return true;
}

static const Dtype *dtype_of(const TensorSpec &spec) {
  const Dtype *dtype = dtype_named(spec.dtype);
  if (!dtype) throw BundleError("the input " + spec.describe() + " has a number type that the native runner lacks");
  return dtype;
}

std::vector<Port> make_ports(const std::vector<TensorSpec> &specs) {
  std::vector<Port> ports;
  for (const TensorSpec &spec : specs) ports.push_back({spec, dtype_of(spec)});
  return ports;
}

static bool fits(const std::vector<Port> &ports, const Arrays &feeds) {
  if (ports.size() != feeds.size()) return false;
  for (const Port &port : ports) {
    const Array *array = find(feeds, port.spec.name);
    if (!array || !port.accepts(*array)) return false;
  }
  return true;
}

[[noreturn]] static void explain(const std::vector<Port> &ports, const Arrays &feeds) {
  Names names, described, given;
  for (const Port &port : ports) {
    names.push_back(port.spec.name);
    described.push_back(port.spec.describe());
  }
  for (const auto &[name, array] : feeds) {
    bool known = false;
    for (const std::string &each : names) known = known || each == name;
    if (!known) throw InputError("the model has no input " + quoted(name) + "; " + suggest(name, names));
    given.push_back(name);
  }
  for (const Port &port : ports) {
    const Array *array = find(feeds, port.spec.name);
    if (!array)
      throw InputError("the input " + port.spec.describe() + " is missing; given: " +
                       (given.empty() ? "nothing" : joined(given)));
    if (!port.accepts(*array))
      throw InputError(port.spec.name + " is " + array->dtype->name + " " + shown(array->shape) +
                       "; the model takes " + port.spec.describe());
  }
  throw InputError("the model takes " + joined(described));
}

void check_feeds(const std::vector<Port> &ports, const Arrays &feeds) {
  if (!fits(ports, feeds)) explain(ports, feeds);
}

Sizes sizes_of(const std::vector<Port> &ports, const Arrays &feeds) {
  Sizes sizes;
  for (const Port &port : ports) {
    const Array *array = find(feeds, port.spec.name);
    for (size_t i = 0; i < port.spec.shape.size(); i++)
      if (port.spec.shape[i].free) sizes[port.spec.shape[i].name] = array->shape[i];
  }
  return sizes;
}

Array zeros_of(const TensorSpec &spec, const Sizes &free) {
  Shape shape;
  for (const Dim &dim : spec.shape) {
    auto known = free.find(dim.name);
    shape.push_back(!dim.free ? dim.size : known == free.end() ? 1 : known->second);
  }
  return zeros(dtype_of(spec), shape);
}

}  // namespace edgewright
