// Launching the kernels of fused.cu from XLA: what `fused.py` compiles for the host.
//
// Its functions are those of the driver that comes with a GPU, declared here and found when they are first needed, so
// that neither CUDA's headers nor its libraries have to be there to compile it. With EMULATED the kernels run on the
// CPU instead (`emulated.h`). With NO_STREAM alone, for tests, a driver is called from a CPU.

#include "fused.h"

#include <cstdint>
#include <cstring>
#include <map>
#include <mutex>
#include <string>
#include <utility>

#include "xla/ffi/api/ffi.h"

#ifdef EMULATED
#include "fused.cu"
#define NO_STREAM
#else
#include <dlfcn.h>
#endif

#ifdef NO_STREAM  // called by XLA for CPUs
#define STREAM
#else
#define STREAM .Ctx<ffi::PlatformStream<Stream>>()
#endif

namespace {

namespace ffi = xla::ffi;
using Floats = ffi::Buffer<ffi::F32>;
using FloatsOut = ffi::ResultBuffer<ffi::F32>;
using Any = ffi::AnyBuffer;
using AnyOut = ffi::Result<ffi::AnyBuffer>;

// Of h [..., G, N, R, I]; the axes before G are members.
Sizes sizes_of(const Any& h) {
  auto dims = h.dimensions();
  const size_t rank = dims.size();
  Sizes size{1, static_cast<int>(dims[rank - 4]), static_cast<int>(dims[rank - 2]), static_cast<int>(dims[rank - 1])};
  for (size_t axis = 0; axis + 4 < rank; ++axis) size.members *= static_cast<int>(dims[axis]);
  return size;
}

int64_t blocks_of(const Sizes& size) {
  return static_cast<int64_t>(size.members) * ((size.inputs + BLOCK_INPUTS - 1) / BLOCK_INPUTS);
}

#ifdef EMULATED

using Stream = void*;

template <typename... Arguments>
ffi::Error launch(Stream, std::string_view, void (*kernel)(Arguments...), const char*, int64_t blocks,
                  Arguments... arguments) {
  try {
    run_emulated(kernel, static_cast<int>(blocks), arguments...);
  } catch (const std::exception& error) {
    return ffi::Error::Internal(error.what());
  }
  return ffi::Error::Success();
}

#define KERNEL(name) name, #name

#else

using Stream = struct CUstream_st*;
using Context = struct CUctx_st*;
using Module = struct CUmod_st*;
using Function = struct CUfunc_st*;
#define KERNEL(name) #name

// The functions of the driver, which return 0 where all is well.
struct Driver {
  int (*cuGetErrorString)(int, const char**);
  int (*cuStreamGetCtx)(Stream, Context*);
  int (*cuCtxPushCurrent_v2)(Context);
  int (*cuCtxPopCurrent_v2)(Context*);
  int (*cuModuleLoadData)(Module*, const void*);
  int (*cuModuleGetFunction)(Function*, Module, const char*);
  int (*cuLaunchKernel)(Function, unsigned, unsigned, unsigned, unsigned, unsigned, unsigned, unsigned, Stream, void**,
                        void**);
  std::string fault;

  explicit Driver(const char* path) {
    void* library = dlopen(path, RTLD_NOW | RTLD_LOCAL);
    if (!library) {
      fault = dlerror();
      return;
    }
#define FIND(name) name = reinterpret_cast<decltype(name)>(find(library, #name))
    FIND(cuGetErrorString);
    FIND(cuStreamGetCtx);
    FIND(cuCtxPushCurrent_v2);
    FIND(cuCtxPopCurrent_v2);
    FIND(cuModuleLoadData);
    FIND(cuModuleGetFunction);
    FIND(cuLaunchKernel);
  }

  void* find(void* library, const char* name) {
    void* found = dlsym(library, name);
    if (!found) fault = std::string(dlerror());
    return found;
  }

  ffi::Error error(const char* what, int code) const {
    const char* text = nullptr;
    cuGetErrorString(code, &text);
    return ffi::Error::Internal(std::string(what) + ": " + (text ? text : "error " + std::to_string(code)));
  }
};

// What was compiled for a GPU, where it was loaded, and its kernels there.
struct Program {
  std::string text;
  const Driver* driver;
  std::map<Context, Module> modules;
  std::map<std::pair<Context, std::string>, Function> kernels;
};

std::mutex turns;
std::map<std::string, Driver> drivers;    // by their paths
std::map<std::string, Program> programs;  // by their names

// Find a kernel in a context, the current one, where its program is loaded first if need be.
ffi::Error find(Program& program, Context context, const char* kernel, Function* found) {
  const std::lock_guard<std::mutex> turn(turns);
  Module& module = program.modules[context];
  if (!module)
    if (const int code = program.driver->cuModuleLoadData(&module, program.text.data())) {
      module = nullptr;
      return program.driver->error("cuModuleLoadData", code);
    }
  Function& function = program.kernels[{context, kernel}];
  if (!function)
    if (const int code = program.driver->cuModuleGetFunction(&function, module, kernel)) {
      function = nullptr;
      return program.driver->error("cuModuleGetFunction", code);
    }
  *found = function;
  return ffi::Error::Success();
}

Program* program_of(std::string_view name) {
  const std::lock_guard<std::mutex> turn(turns);
  const auto found = programs.find(std::string(name));
  return found == programs.end() ? nullptr : &found->second;
}

template <typename... Arguments>
ffi::Error launch(Stream stream, std::string_view name, const char* kernel, int64_t blocks, Arguments... arguments) {
  if (blocks == 0) return ffi::Error::Success();
  if (blocks > INT32_MAX) return ffi::Error::InvalidArgument("more than 2^31 blocks: take fewer members at a time");
  Program* program = program_of(name);
  if (!program) return ffi::Error::Internal("no program " + std::string(name) + " was compiled in this process");
  const Driver& at = *program->driver;
  Context context = nullptr, popped = nullptr;
  if (const int code = at.cuStreamGetCtx(stream, &context)) return at.error("cuStreamGetCtx", code);
  if (const int code = at.cuCtxPushCurrent_v2(context)) return at.error("cuCtxPushCurrent", code);
  Function function = nullptr;
  ffi::Error error = find(*program, context, kernel, &function);
  if (error.success()) {
    void* all[] = {&arguments...};
    const unsigned threads = 32 * WARPS;
    const int code = at.cuLaunchKernel(function, static_cast<unsigned>(blocks), 1, 1, threads, 1, 1, 0, stream, all,
                                       nullptr);
    if (code) error = at.error("cuLaunchKernel", code);
  }
  at.cuCtxPopCurrent_v2(&popped);
  return error;
}

#endif

Visit visit_of(const Floats& hidden, const Floats& forward, const Floats& from_output, const Any& h, const Any& c,
               const Floats& message) {
  return {sizes_of(h),      hidden.typed_data(), forward.typed_data(), from_output.typed_data(), h.untyped_data(),
          c.untyped_data(), message.typed_data()};
}

ffi::Error forward_all(
#ifndef NO_STREAM
    Stream stream,
#endif
    std::string_view program, Floats hidden, Floats forward, Floats from_output, Any h, Any c, Floats message,
    AnyOut new_h, AnyOut new_c, FloatsOut sum_over_inputs, FloatsOut sum_over_outputs) {
#ifdef NO_STREAM
  const Stream stream = nullptr;
#endif
  const Visit from = visit_of(hidden, forward, from_output, h, c, message);
  const Visited to{new_h->untyped_data(), new_c->untyped_data(), sum_over_inputs->typed_data(),
                   sum_over_outputs->typed_data()};
  return launch(stream, program, KERNEL(visit), blocks_of(from.size), from, to);
}

ffi::Error backward_all(
#ifndef NO_STREAM
    Stream stream,
#endif
    std::string_view program, Floats hidden, Floats forward, Floats from_output, Any h, Any c, Floats message,
    Any d_new_h, Any d_new_c, Floats d_sum_over_inputs, Floats d_sum_over_outputs, FloatsOut d_hidden,
    FloatsOut d_from_input, FloatsOut d_from_output, AnyOut d_h, AnyOut d_c) {
#ifdef NO_STREAM
  const Stream stream = nullptr;
#endif
  const Visit from = visit_of(hidden, forward, from_output, h, c, message);
  const Cotangents back{d_new_h.untyped_data(), d_new_c.untyped_data(), d_sum_over_inputs.typed_data(),
                        d_sum_over_outputs.typed_data()};
  const Gradient to{d_hidden->typed_data(), d_from_input->typed_data(), d_from_output->typed_data(),
                    d_h->untyped_data(), d_c->untyped_data()};
  return launch(stream, program, KERNEL(visit_back), blocks_of(from.size), from, back, to);
}

}  // namespace

#define VISIT .Arg<Floats>().Arg<Floats>().Arg<Floats>().Arg<Any>().Arg<Any>().Arg<Floats>()

XLA_FFI_DEFINE_HANDLER_SYMBOL(vsml_forward, forward_all,
                              ffi::Ffi::Bind() STREAM.Attr<std::string_view>("program") VISIT.Ret<Any>()
                                  .Ret<Any>()
                                  .Ret<Floats>()
                                  .Ret<Floats>());
XLA_FFI_DEFINE_HANDLER_SYMBOL(vsml_backward, backward_all,
                              ffi::Ffi::Bind() STREAM.Attr<std::string_view>("program") VISIT.Arg<Any>()
                                  .Arg<Any>()
                                  .Arg<Floats>()
                                  .Arg<Floats>()
                                  .Ret<Floats>()
                                  .Ret<Floats>()
                                  .Ret<Floats>()
                                  .Ret<Any>()
                                  .Ret<Any>());

#ifndef EMULATED
// Keep a compiled program under a name. Returns why it cannot be run, or nothing.
extern "C" const char* vsml_keep(const char* name, const char* text, int64_t bytes, const char* driver_path) {
  const std::lock_guard<std::mutex> turn(turns);
  const Driver& driver = drivers.try_emplace(driver_path, driver_path).first->second;
  if (driver.fault.empty()) programs.try_emplace(name, Program{std::string(text, bytes), &driver, {}, {}});
  return driver.fault.c_str();
}
#endif
