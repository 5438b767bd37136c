/* One operator of ONNX Runtime, edgewright::Kernel, that calls a kernel of the shared library it is linked into.
 * edgewright::FloatKernel is the same for outputs that are all float32: ONNX Runtime renames outputs when it moves
 * roundings through a graph, and then knows a type no more that only the graph had stated.
 *
 * Attributes of a node:
 *   symbol  string  the kernel: void symbol(in0, in1, ..., out0, ..., [scratch,] int32_t begin, int32_t end)
 *   shapes  ints    the rank and then the sizes of each output, one output after the other
 *   types   ints    the ONNX element type of each output
 *   items   int     how much work there is; any split of it into ranges [begin, end) computes the same
 *   scratch int     optional: bytes of memory that each call has for itself
 *   calls   int     optional: into how many calls, side by side, the work may be split (32; 1 keeps it on one thread)
 *
 * The session's configuration entry `edgewright.threads` = `1` says that splitting is no use. */
#include "node.h"

#include <stdatomic.h>
#include <string.h>

/* ------------------------------------------------------------------ one run */

typedef struct {
  const Kernel *kernel;
  size_t count;
  void *pointers[MOST_POINTERS];
  char *scratch;
  atomic_uint taken; /* one bit for each piece of scratch memory in use; there are as many as calls */
} Run;

/* The lowest free piece: on one thread always the same, which stays in the caches. */
static unsigned take(atomic_uint *taken) {
  unsigned seen = atomic_load(taken), piece = 0;
  do {
    for (piece = 0; seen >> piece & 1u; piece++) {
    }
  } while (!atomic_compare_exchange_weak(taken, &seen, seen | 1u << piece));
  return piece;
}

static void compute_part(void *given, size_t part) {
  Run *run = given;
  const Kernel *kernel = run->kernel;
  int32_t begin = (int32_t)(kernel->items * (int64_t)part / kernel->calls);
  int32_t end = (int32_t)(kernel->items * ((int64_t)part + 1) / kernel->calls);
  if (!kernel->scratch) {
    call(kernel->function, run->count, run->pointers, begin, end);
    return;
  }
  void *pointers[MOST_POINTERS];
  unsigned piece = take(&run->taken);
  memcpy(pointers, run->pointers, sizeof pointers);
  pointers[run->count] = run->scratch + piece * kernel->scratch;
  call(kernel->function, run->count + 1, pointers, begin, end);
  atomic_fetch_and(&run->taken, ~(1u << piece));
}

static OrtStatus *compute_all(Run *run, OrtKernelContext *context) {
  if (run->kernel->calls > 1)
    return run->kernel->api->KernelContext_ParallelFor(context, compute_part, (size_t)run->kernel->calls, 0, run);
  compute_part(run, 0);
  return NULL;
}

static OrtStatus *with_scratch(Run *run, OrtKernelContext *context) {
  const Kernel *kernel = run->kernel;
  OrtAllocator *allocator = NULL;
  CHECK(kernel->api->KernelContext_GetAllocator(context, kernel->memory, &allocator));
  char *memory = allocator->Alloc(allocator, kernel->scratch * (size_t)kernel->calls + ALIGNMENT);
  OrtStatus *status = NULL;
  if (memory) {
    run->scratch = memory + (ALIGNMENT - (uintptr_t)memory % ALIGNMENT) % ALIGNMENT;
    status = compute_all(run, context);
    allocator->Free(allocator, memory);
  } else {
    status = kernel->api->CreateStatus(ORT_FAIL, "no memory is left for a kernel's scratch memory");
  }
  kernel->api->ReleaseAllocator(allocator);
  return status;
}

static OrtStatus *bind(Run *run, OrtKernelContext *context) {
  const Kernel *kernel = run->kernel;
  const OrtApi *api = kernel->api;
  for (size_t i = 0; i < kernel->inputs; i++) {
    const OrtValue *value = NULL;
    CHECK(api->KernelContext_GetInput(context, i, &value));
    if (!value) return api->CreateStatus(ORT_INVALID_ARGUMENT, "an input of a kernel is missing");
    CHECK(api->GetTensorMutableData((OrtValue *)value, &run->pointers[run->count++]));
  }
  for (size_t i = 0; i < kernel->outputs; i++) {
    OrtValue *value = NULL;
    CHECK(api->KernelContext_GetOutput(context, i, kernel->sizes[i], kernel->ranks[i], &value));
    CHECK(api->GetTensorMutableData(value, &run->pointers[run->count++]));
  }
  return NULL;
}

static OrtStatus *ORT_API_CALL compute(void *kernel, OrtKernelContext *context) {
  Run run = {.kernel = kernel};
  CHECK(bind(&run, context));
  return run.kernel->scratch ? with_scratch(&run, context) : compute_all(&run, context);
}

/* ------------------------------------------------------------------ a kernel's life */

static void ORT_API_CALL destroy(void *given) {
  Kernel *kernel = given;
  if (kernel->memory) kernel->api->ReleaseMemoryInfo(kernel->memory);
  free(kernel->shapes);
  free(kernel->types);
  free(kernel);
}

static OrtStatus *ORT_API_CALL create(const OrtCustomOp *op, const OrtApi *api, const OrtKernelInfo *info,
                                      void **result) {
  (void)op;
  Kernel *kernel = calloc(1, sizeof *kernel);
  if (!kernel) return api->CreateStatus(ORT_FAIL, "no memory is left");
  kernel->api = api;
  kernel->info = info;
  OrtStatus *status = read_node(kernel);
  if (status) destroy(kernel);
  *result = status ? NULL : kernel;
  return status;
}

static OrtStatus *ORT_API_CALL create_serial(const OrtCustomOp *op, const OrtApi *api, const OrtKernelInfo *info,
                                             void **result) {
  CHECK(create(op, api, info, result));
  ((Kernel *)*result)->calls = 1;
  return NULL;
}

/* ------------------------------------------------------------------ the operator */

static const char *ORT_API_CALL get_name(const OrtCustomOp *op) {
  (void)op;
  return "Kernel";
}

static const char *ORT_API_CALL get_float_name(const OrtCustomOp *op) {
  (void)op;
  return "FloatKernel";
}

static const char *ORT_API_CALL get_provider(const OrtCustomOp *op) {
  (void)op;
  return "CPUExecutionProvider";
}

static ONNXTensorElementDataType ORT_API_CALL get_type(const OrtCustomOp *op, size_t index) {
  (void)op, (void)index;
  return ONNX_TENSOR_ELEMENT_DATA_TYPE_UNDEFINED; /* any */
}

static ONNXTensorElementDataType ORT_API_CALL get_float(const OrtCustomOp *op, size_t index) {
  (void)op, (void)index;
  return ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT;
}

static OrtCustomOpInputOutputCharacteristic ORT_API_CALL get_kind(const OrtCustomOp *op, size_t index) {
  (void)op, (void)index;
  return INPUT_OUTPUT_VARIADIC;
}

static OrtMemType ORT_API_CALL get_memory(const OrtCustomOp *op, size_t index) {
  (void)op, (void)index;
  return OrtMemTypeDefault;
}

static size_t ORT_API_CALL one(const OrtCustomOp *op) {
  (void)op;
  return 1;
}

static int ORT_API_CALL at_least_one(const OrtCustomOp *op) {
  (void)op;
  return 1;
}

static int ORT_API_CALL no(const OrtCustomOp *op) {
  (void)op;
  return 0;
}

#define OPERATOR(creator, least_api, name, output)                                                             \
  {                                                                                                            \
    .version = least_api, .GetName = name, .GetExecutionProviderType = get_provider,                           \
    .GetInputType = get_type, .GetInputTypeCount = one, .GetOutputType = output, .GetOutputTypeCount = one,    \
    .KernelDestroy = destroy, .GetInputCharacteristic = get_kind, .GetOutputCharacteristic = get_kind,         \
    .GetInputMemoryType = get_memory, .GetVariadicInputMinArity = at_least_one,                                \
    .GetVariadicInputHomogeneity = no, .GetVariadicOutputMinArity = at_least_one,                              \
    .GetVariadicOutputHomogeneity = no, .CreateKernelV2 = creator, .KernelComputeV2 = compute                  \
  }

enum { PARALLEL_SINCE = 17, SERIAL_SINCE = 16 };

#define OPERATORS(creator, least_api) \
  {OPERATOR(creator, least_api, get_name, get_type), OPERATOR(creator, least_api, get_float_name, get_float)}

static const OrtCustomOp PARALLEL[] = OPERATORS(create, PARALLEL_SINCE);
static const OrtCustomOp SERIAL[] = OPERATORS(create_serial, SERIAL_SINCE);

/* 31 of "1.31.0". Asking for an API that is too new instead would make ONNX Runtime complain on stderr. */
static int minor_version(const char *text) {
  int minor = 0;
  for (const char *digit = strchr(text, '.') + 1; *digit >= '0' && *digit <= '9'; digit++)
    minor = minor * 10 + (*digit - '0');
  return minor;
}

static int asks_for_one_thread(const OrtApi *api, const OrtSessionOptions *options) {
  char value[8] = "";
  size_t size = sizeof value;
  OrtStatus *status = api->GetSessionConfigEntry(options, "edgewright.threads", value, &size);
  if (status) api->ReleaseStatus(status);
  return !status && !strcmp(value, "1");
}

/* What ONNX Runtime calls. It never says when a domain may be released, so each session costs one for good. */
__attribute__((visibility("default"))) OrtStatus *ORT_API_CALL RegisterCustomOps(OrtSessionOptions *options,
                                                                                const OrtApiBase *base) {
  const OrtApi *api = base->GetApi(SERIAL_SINCE);
  if (!api) return base->GetApi(1)->CreateStatus(ORT_NOT_IMPLEMENTED, "kernels need onnxruntime 1.16 or newer");
  int serial = minor_version(base->GetVersionString()) < PARALLEL_SINCE || asks_for_one_thread(api, options);
  OrtCustomOpDomain *domain = NULL;
  CHECK(api->CreateCustomOpDomain("edgewright", &domain));
  for (size_t i = 0; i < sizeof SERIAL / sizeof *SERIAL; i++)
    CHECK(api->CustomOpDomain_Add(domain, serial ? &SERIAL[i] : &PARALLEL[i]));
  return api->AddCustomOpDomain(options, domain);
}
