/* Reads a node of a graph and checks everything about it, so that nothing can be wrong with it when it runs. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#include "call.h"
#include "onnxruntime_c_api.h"

/* glibc 2.34 gave these new versions. By their first one the library also opens on devices that are older than the
 * machine that linked it. */
#if defined(__GLIBC__) && defined(__x86_64__)
#define FIRST "@GLIBC_2.2.5"
#elif defined(__GLIBC__) && defined(__aarch64__)
#define FIRST "@GLIBC_2.17"
#endif
#ifdef FIRST
__asm__(".symver dladdr, dladdr" FIRST);
__asm__(".symver dlopen, dlopen" FIRST);
__asm__(".symver dlsym, dlsym" FIRST);
__asm__(".symver dlclose, dlclose" FIRST);
#endif

enum { MOST_CALLS = 32, MOST_AXES = 32, ALIGNMENT = 64 };

typedef struct {
  const OrtApi *api;
  const OrtKernelInfo *info; /* only while the node is read */
  OrtMemoryInfo *memory;
  void *function;
  size_t inputs, outputs, scratch;
  int64_t items, calls;
  int64_t *shapes, *types;
  const int64_t *sizes[MOST_POINTERS]; /* of each output, in `shapes` */
  size_t ranks[MOST_POINTERS];
} Kernel;

#define CHECK(call)              \
  do {                           \
    OrtStatus *status_ = (call); \
    if (status_) return status_; \
  } while (0)

static OrtStatus *fault(const Kernel *kernel, const char *format, ...) {
  char text[1000], name[200];
  size_t size = sizeof name;
  OrtStatus *status = kernel->api->KernelInfo_GetNodeName(kernel->info, name, &size);
  if (status) {
    kernel->api->ReleaseStatus(status);
    name[0] = '\0';
  }
  int used = snprintf(text, sizeof text, "kernel node '%s': ", name);
  va_list arguments;
  va_start(arguments, format);
  vsnprintf(text + used, sizeof text - (size_t)used, format, arguments);
  va_end(arguments);
  return kernel->api->CreateStatus(ORT_INVALID_GRAPH, text);
}

/* Whether a call went well; what it said is let go, because ours is said instead. */
static int fine(const Kernel *kernel, OrtStatus *status) {
  if (status) kernel->api->ReleaseStatus(status);
  return !status;
}

/* ------------------------------------------------------------------ what the attributes say */

/* Whether there is an attribute that is no integer: its default must not stand in for it. */
static int is_other(const Kernel *kernel, const char *name) {
  float number;
  size_t size = 0;
  return fine(kernel, kernel->api->KernelInfoGetAttribute_float(kernel->info, name, &number)) ||
         fine(kernel, kernel->api->KernelInfoGetAttribute_string(kernel->info, name, NULL, &size)) ||
         fine(kernel, kernel->api->KernelInfoGetAttributeArray_int64(kernel->info, name, NULL, &size));
}

static OrtStatus *read_count(const Kernel *kernel, const char *name, int64_t least, int64_t most, int64_t absent,
                             int64_t *value) {
  if (!fine(kernel, kernel->api->KernelInfoGetAttribute_int64(kernel->info, name, value)))
    *value = is_other(kernel, name) ? least - 1 : absent;
  if (*value >= least && *value <= most) return NULL;
  return fault(kernel, "the attribute '%s' must be an integer from %lld to %lld", name, (long long)least,
               (long long)most);
}

/* What *values points at is freed with the kernel. */
static OrtStatus *read_list(const Kernel *kernel, const char *name, int64_t **values, size_t *count) {
  const OrtApi *api = kernel->api;
  *count = 0;
  if (fine(kernel, api->KernelInfoGetAttributeArray_int64(kernel->info, name, NULL, count)) && *count)
    *values = malloc(*count * sizeof **values);
  if (*values && fine(kernel, api->KernelInfoGetAttributeArray_int64(kernel->info, name, *values, count))) return NULL;
  return fault(kernel, "the attribute '%s' must be a list of integers", name);
}

/* A function of this library: one that a library of the system happens to have under that name is none. */
static OrtStatus *read_symbol(Kernel *kernel) {
  char symbol[256];
  size_t size = sizeof symbol;
  Dl_info own, found;
  if (!fine(kernel, kernel->api->KernelInfoGetAttribute_string(kernel->info, "symbol", symbol, &size)))
    return fault(kernel, "the attribute 'symbol' must be a string of fewer than %zu characters", sizeof symbol);
  if (!dladdr((void *)(uintptr_t)read_symbol, &own)) return fault(kernel, "its library cannot be found");
  void *library = dlopen(own.dli_fname, RTLD_NOW | RTLD_NOLOAD);
  kernel->function = library ? dlsym(library, symbol) : NULL;
  if (library) dlclose(library);
  if (kernel->function && dladdr(kernel->function, &found) && found.dli_fbase == own.dli_fbase) return NULL;
  return fault(kernel, "no kernel '%s' is in the library %s", symbol, own.dli_fname);
}

static OrtStatus *read_shapes(Kernel *kernel) {
  size_t count, at = 0;
  CHECK(read_list(kernel, "shapes", &kernel->shapes, &count));
  for (size_t i = 0; i < kernel->outputs; at += 1 + kernel->ranks[i++]) {
    if (at >= count || kernel->shapes[at] < 0 || (size_t)kernel->shapes[at] >= count - at)
      return fault(kernel, "the attribute 'shapes' is too short for its %zu outputs", kernel->outputs);
    kernel->ranks[i] = (size_t)kernel->shapes[at];
    kernel->sizes[i] = kernel->shapes + at + 1;
    for (size_t axis = 0; axis < kernel->ranks[i]; axis++)
      if (kernel->sizes[i][axis] < 1) return fault(kernel, "the attribute 'shapes' has a size below 1");
  }
  return at == count ? NULL : fault(kernel, "the attribute 'shapes' tells of more than its %zu outputs", kernel->outputs);
}

static OrtStatus *read_types(Kernel *kernel) {
  size_t count;
  CHECK(read_list(kernel, "types", &kernel->types, &count));
  if (count == kernel->outputs) return NULL;
  return fault(kernel, "the attribute 'types' has %zu entries for %zu outputs", count, kernel->outputs);
}

/* ------------------------------------------------------------------ whether the graph agrees */

typedef struct {
  size_t rank;
  int64_t sizes[MOST_AXES];
  ONNXTensorElementDataType type;
} Tensor;

static OrtStatus *describe(const Kernel *kernel, const OrtTypeInfo *type, Tensor *tensor) {
  const OrtTensorTypeAndShapeInfo *info = NULL;
  CHECK(kernel->api->CastTypeInfoToTensorInfo(type, &info));
  if (!info) return fault(kernel, "it takes and gives tensors only");
  CHECK(kernel->api->GetTensorElementType(info, &tensor->type));
  CHECK(kernel->api->GetDimensionsCount(info, &tensor->rank));
  if (tensor->rank > MOST_AXES) return fault(kernel, "a tensor has more than %d axes", MOST_AXES);
  return kernel->api->GetDimensions(info, tensor->sizes, tensor->rank);
}

/* A kernel knows the sizes of its inputs from when it was compiled: no axis may be free. */
static OrtStatus *check_input(const Kernel *kernel, size_t index) {
  OrtTypeInfo *type = NULL;
  Tensor tensor;
  CHECK(kernel->api->KernelInfo_GetInputTypeInfo(kernel->info, index, &type));
  OrtStatus *status = describe(kernel, type, &tensor);
  kernel->api->ReleaseTypeInfo(type);
  CHECK(status);
  for (size_t axis = 0; axis < tensor.rank; axis++)
    if (tensor.sizes[axis] < 0)
      return fault(kernel, "axis %zu of its input %zu has no fixed size in the graph", axis, index);
  return NULL;
}

static OrtStatus *check_output(const Kernel *kernel, size_t index) {
  OrtTypeInfo *type = NULL;
  Tensor tensor;
  CHECK(kernel->api->KernelInfo_GetOutputTypeInfo(kernel->info, index, &type));
  OrtStatus *status = describe(kernel, type, &tensor);
  kernel->api->ReleaseTypeInfo(type);
  CHECK(status);
  /* Without a shape, an output counts as one without axes: ONNX Runtime has renamed it. */
  int same = !tensor.rank || tensor.rank == kernel->ranks[index];
  for (size_t axis = 0; same && axis < tensor.rank; axis++)
    same = tensor.sizes[axis] == kernel->sizes[index][axis];
  if (!same) return fault(kernel, "the graph gives its output %zu another shape than 'shapes' does", index);
  if ((int64_t)tensor.type == kernel->types[index]) return NULL;
  return fault(kernel, "the graph gives its output %zu the type %d, the attribute 'types' %lld", index,
               (int)tensor.type, (long long)kernel->types[index]);
}

/* ------------------------------------------------------------------ all of it */

static OrtStatus *read_node(Kernel *kernel) {
  const OrtApi *api = kernel->api;
  int64_t scratch;
  CHECK(read_symbol(kernel));
  CHECK(read_count(kernel, "items", 1, INT32_MAX, 0, &kernel->items));
  CHECK(read_count(kernel, "calls", 1, MOST_CALLS, MOST_CALLS, &kernel->calls));
  CHECK(read_count(kernel, "scratch", 0, INT32_MAX, 0, &scratch));
  kernel->scratch = ((size_t)scratch + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT;
  if (kernel->calls > kernel->items) kernel->calls = kernel->items;
  CHECK(api->KernelInfo_GetInputCount(kernel->info, &kernel->inputs));
  CHECK(api->KernelInfo_GetOutputCount(kernel->info, &kernel->outputs));
  if (kernel->inputs + kernel->outputs + (scratch > 0) > MOST_POINTERS)
    return fault(kernel, "%zu inputs and %zu outputs are too many; a kernel takes %d pointers, scratch included",
                 kernel->inputs, kernel->outputs, MOST_POINTERS);
  CHECK(read_shapes(kernel));
  CHECK(read_types(kernel));
  for (size_t i = 0; i < kernel->inputs; i++) CHECK(check_input(kernel, i));
  for (size_t i = 0; i < kernel->outputs; i++) CHECK(check_output(kernel, i));
  return api->CreateCpuMemoryInfo(OrtArenaAllocator, OrtMemTypeDefault, &kernel->memory);
}
