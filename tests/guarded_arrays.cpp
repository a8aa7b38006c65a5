// Runs the kernels of fused.cu, emulated, on arrays that begin or end where no memory is: a program that a read or a
// write beyond an array ends. Prints how often they ran.

#include "fused.h"

#include <sys/mman.h>

#include <cstdio>
#include <type_traits>

#include "fused.cu"

namespace {

constexpr size_t PAGE = 1 << 16;  // of all systems, or a multiple of it
using State = std::conditional_t<H_TYPE == 32, float, unsigned short>;

// Zeros with a forbidden page on either side, one of which they touch.
template <typename T>
T* guarded(size_t count, bool at_end) {
  const size_t bytes = count * sizeof(T), pages = (bytes + PAGE - 1) / PAGE * PAGE;
  char* const all = static_cast<char*>(
      mmap(nullptr, pages + 2 * PAGE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
  mprotect(all + PAGE, pages, PROT_READ | PROT_WRITE);
  return reinterpret_cast<T*>(all + PAGE + (at_end ? pages - bytes : 0));
}

void run(const Sizes& size, bool at_end) {
  const size_t P = size.members, O = size.tiles * size.rows, I = size.inputs;
  const size_t blocks = P * ((I + BLOCK_INPUTS - 1) / BLOCK_INPUTS), synapses = P * O * I * N;
  const auto floats = [=](size_t count) { return guarded<float>(count, at_end); };
  const auto state = [=] { return guarded<State>(synapses, at_end); };
  const Visit from{size,    floats(P * NP * 4 * NP), floats(P * NP * 4 * M), floats(P * O * NP * 4),
                   state(), state(),                 floats(P * I * M)};
  const Visited to{state(), state(), floats(blocks * O * NP), floats(P * I * NP)};
  run_emulated(visit, static_cast<int>(blocks), from, to);
  const Cotangents back{state(), state(), floats(blocks * O * NP), floats(P * I * NP)};
  const Gradient gradient{floats(blocks * NP * 4 * NP), floats(P * I * NP * 4), floats(blocks * O * NP * 4), state(),
                          state()};
  run_emulated(visit_back, static_cast<int>(blocks), from, back, gradient);
}

}  // namespace

int main() {
  const Sizes sizes[] = {{1, 1, 1, 1}, {2, 1, 3, 5}, {3, 2, 2, 32}, {1, 3, 1, 33}, {2, 1, 5, 70}, {2, 2, 2, 12}};
  int count = 0;
  for (const Sizes& size : sizes)
    for (const bool at_end : {false, true}) run(size, at_end), ++count;
  std::printf("%d\n", count);
}
