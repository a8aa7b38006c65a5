// A driver of a GPU that is not there: what fused.cpp asks of libcuda.so.1, with kernels that run on the CPU.
//
// It refuses what the environment variable FAKE_CUDA_FAULT names, and says how often its functions were called.

#include "fused.h"

#include <cstdint>
#include <cstdlib>
#include <cstring>

#include "fused.cu"

namespace {
int calls[3], pushed;  // of loading, finding and launching
const char CONTEXT = 0, MODULE = 0;

bool refused(const char* name) {
  const char* asked = std::getenv("FAKE_CUDA_FAULT");
  return asked && !std::strcmp(asked, name);
}
}  // namespace

extern "C" {

int called(int which) { return which < 3 ? calls[which] : pushed; }

int cuGetErrorString(int code, const char** text) {
  *text = code == 7 ? "the fake refuses" : nullptr;
  return 0;
}

int cuDriverGetVersion(int* version) {
  *version = 12040;
  return 0;
}

int cuStreamGetCtx(void*, const void** context) {
  *context = &CONTEXT;
  return refused("cuStreamGetCtx") ? 7 : 0;
}

int cuCtxPushCurrent_v2(const void* context) {
  ++pushed;
  return context == &CONTEXT ? 0 : 8;
}

int cuCtxPopCurrent_v2(const void**) {
  --pushed;
  return 0;
}

int cuModuleLoadData(const void** module, const char* text) {
  ++calls[0];
  *module = &MODULE;
  if (refused("cuModuleLoadData")) return 7;
  return std::strcmp(text, "what a GPU runs") ? 8 : 0;
}

int cuModuleGetFunction(void** function, const void* module, const char* name) {
  ++calls[1];
  const bool forward = !std::strcmp(name, "visit"), backward = !std::strcmp(name, "visit_back");
  *function = forward ? reinterpret_cast<void*>(visit) : reinterpret_cast<void*>(visit_back);
  return refused("cuModuleGetFunction") ? 7 : module == &MODULE && (forward || backward) ? 0 : 8;
}

int cuLaunchKernel(void* function, unsigned x, unsigned y, unsigned z, unsigned threads, unsigned threads_y,
                   unsigned threads_z, unsigned shared, void*, void** arguments, void** extra) {
  ++calls[2];
  if (refused("cuLaunchKernel")) return 7;
  if (y * z * threads_y * threads_z != 1 || threads != 32 * WARPS || shared || extra) return 8;
  const Visit from = *static_cast<Visit*>(arguments[0]);
  if (function == reinterpret_cast<void*>(visit))
    run_emulated(visit, static_cast<int>(x), from, *static_cast<Visited*>(arguments[1]));
  else
    run_emulated(visit_back, static_cast<int>(x), from, *static_cast<Cotangents*>(arguments[1]),
                 *static_cast<Gradient*>(arguments[2]));
  return 0;
}
}
