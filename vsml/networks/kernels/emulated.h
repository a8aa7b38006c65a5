// A CPU that runs a CUDA kernel: what fused.cu takes from a GPU, written out for tests.
//
// Threads of a block are contexts of one thread of the CPU, which runs each until it waits for others. Blocks run one
// after the other. Threads take their turns from the first to the last in every other block, and from the last to the
// first in those between, so that a barrier that is missing changes results. Tensor cores read 19 bits of a number, as
// they do on a GPU, add 8 products at once, and round what they add them to towards zero, as GPUs were found to do.

#pragma once

#include <ucontext.h>

#include <cmath>
#include <cstdint>
#include <cstring>
#include <functional>
#include <memory>
#include <stdexcept>

#define DEVICE inline
#define __global__
#define __launch_bounds__(threads)
#define __shared__ static thread_local

namespace {

constexpr int EMULATED_THREADS = 32 * WARPS;
constexpr size_t STACK_BYTES = 256 << 10;

struct Index {
  int x;
};
thread_local Index threadIdx, blockIdx;

// The threads of a block.
class Block {
  struct Thread {
    ucontext_t context;
    std::unique_ptr<char[]> stack;
    bool done;
    long long warp_barriers, block_barriers;  // that it has come to
  };
  Thread threads[EMULATED_THREADS];
  ucontext_t scheduler;
  long long at_warp_barriers[WARPS], at_block_barriers, progress;  // arrivals of all threads
  std::function<void()> kernel;

  static void begin(unsigned high, unsigned low) {
    Block* block = reinterpret_cast<Block*>(static_cast<uintptr_t>(high) << 32 | low);
    block->kernel();
    block->threads[threadIdx.x].done = true;
    ++block->progress;
    swapcontext(&block->threads[threadIdx.x].context, &block->scheduler);
  }

  void wait(const long long& arrivals, long long needed) {
    Thread& own = threads[threadIdx.x];
    while (arrivals < needed) swapcontext(&own.context, &scheduler);
  }

 public:
  float exchange[WARPS][2][32][8];  // what lanes show each other, in two buffers that take turns

  void run(std::function<void()> what, int block) {
    kernel = std::move(what);
    at_block_barriers = progress = 0;
    std::memset(at_warp_barriers, 0, sizeof(at_warp_barriers));
    const uintptr_t own = reinterpret_cast<uintptr_t>(this);
    for (Thread& thread : threads) {
      if (!thread.stack) thread.stack.reset(new char[STACK_BYTES]);
      getcontext(&thread.context);
      thread.context.uc_stack.ss_sp = thread.stack.get();
      thread.context.uc_stack.ss_size = STACK_BYTES;
      thread.context.uc_link = nullptr;
      thread.done = false;
      thread.warp_barriers = thread.block_barriers = 0;
      makecontext(&thread.context, reinterpret_cast<void (*)()>(begin), 2, static_cast<unsigned>(own >> 32),
                  static_cast<unsigned>(own));
    }
    blockIdx.x = block;
    for (bool running = true; running;) {
      const long long before = progress;
      running = false;
      for (int turn = 0; turn < EMULATED_THREADS; ++turn) {
        threadIdx.x = block % 2 ? EMULATED_THREADS - 1 - turn : turn;
        Thread& thread = threads[threadIdx.x];
        if (!thread.done) swapcontext(&scheduler, &thread.context);
        running = running || !thread.done;
      }
      if (running && progress == before) throw std::runtime_error("threads wait for each other forever");
    }
  }

  // Wait for the other lanes of the warp; returns how many such barriers were before.
  long long wait_for_warp() {
    const int warp = threadIdx.x / 32;
    const long long before = threads[threadIdx.x].warp_barriers++;
    ++at_warp_barriers[warp], ++progress;
    wait(at_warp_barriers[warp], 32 * (before + 1));
    return before;
  }

  void wait_for_block() {
    const long long before = threads[threadIdx.x].block_barriers++;
    ++at_block_barriers, ++progress;
    wait(at_block_barriers, EMULATED_THREADS * (before + 1));
  }

  // Show some numbers to the other lanes, and return all that they show.
  template <int COUNT>
  const float (*shown(const float (&numbers)[COUNT]))[8] {
    const int warp = threadIdx.x / 32, buffer = threads[threadIdx.x].warp_barriers % 2;
    std::memcpy(exchange[warp][buffer][threadIdx.x % 32], numbers, sizeof(numbers));
    wait_for_warp();
    return exchange[warp][buffer];
  }
};

thread_local std::unique_ptr<Block> emulated;

void __syncwarp() { emulated->wait_for_warp(); }
void __syncthreads() { emulated->wait_for_block(); }

float exponential_2(float x) { return std::exp2(x); }
float reciprocal(float x) { return 1.0f / x; }
float least(float x, float y) { return x != x ? x : x < y ? x : y; }

unsigned bits_of(float x) {
  unsigned bits;
  std::memcpy(&bits, &x, sizeof(bits));
  return bits;
}

float float_of(unsigned bits) {
  float x;
  std::memcpy(&x, &bits, sizeof(x));
  return x;
}

float from_half(unsigned short bits) {
  _Float16 x;
  std::memcpy(&x, &bits, sizeof(x));
  return x;
}

unsigned short to_half(float x) {
  const _Float16 shorter = x;
  unsigned short bits;
  std::memcpy(&bits, &shorter, sizeof(bits));
  return bits;
}

unsigned short to_bfloat16(float x) {  // to the nearest, of two as near to the even one
  const unsigned bits = bits_of(x);
  return x != x ? 0x7fff : (bits + 0x7fff + (bits >> 16 & 1)) >> 16;
}

float exchanged(float x, int mask) {
  const float own[1] = {x};
  const int other = threadIdx.x % 32 ^ mask;
  return emulated->shown(own)[other][0];
}

float read_by_tensor_core(float x) { return float_of(bits_of(x) & 0xffffe000u); }

float towards_zero(double x) {
  const float nearest = static_cast<float>(x);
  return std::fabs(nearest) > std::fabs(x) ? std::nextafter(nearest, 0.0f) : nearest;
}

void multiply_short(float (&d)[4], const float (&a)[4], float b0, float b1) {
  const float own[6] = {a[0], a[1], a[2], a[3], b0, b1};
  const int g = threadIdx.x % 32 / 4, t = threadIdx.x % 4;
  const float(*lanes)[8] = emulated->shown(own);
  for (int i = 0; i < 4; ++i) {
    const int half = i / 2, column = 2 * t + i % 2;  // of row g + 8 half
    double sum = d[i];
    for (int k = 0; k < 8; ++k) {
      const double left = read_by_tensor_core(lanes[4 * g + k % 4][half + 2 * (k / 4)]);
      const double right = read_by_tensor_core(lanes[4 * column + k % 4][4 + k / 4]);
      sum += left * right;
    }
    d[i] = towards_zero(sum);
  }
}

// Run a kernel in some blocks.
template <typename... Arguments>
void run_emulated(void (*kernel)(Arguments...), int blocks, Arguments... arguments) {
  if (!emulated) emulated.reset(new Block());
  for (int block = 0; block < blocks; ++block) emulated->run([&] { kernel(arguments...); }, block);
}

}  // namespace
