// States of synapses in the memory of a GPU, and which of them a thread has.
//
// Included by fused.cu behind its constants N, K and NP.

#pragma once

namespace {

struct Pair {
  float of[2];
};

// Two neighbours in an array of states; `count` of them are there.
template <int TYPE>
DEVICE Pair read(const void* array, long long place, int count, bool paired) {
  Pair pair = {{0.0f, 0.0f}};
  if (count == 0) return pair;
  if (TYPE == 32) {
    const float* at = static_cast<const float*>(array) + place;
    if (paired) return *reinterpret_cast<const Pair*>(__builtin_assume_aligned(at, 8));
    pair.of[0] = at[0];
    if (count > 1) pair.of[1] = at[1];
    return pair;
  }
  const unsigned short* at = static_cast<const unsigned short*>(array) + place;
  unsigned bits = 0;
  if (paired) {
    bits = *reinterpret_cast<const unsigned*>(at);
  } else {
    bits = at[0];
    if (count > 1) bits |= static_cast<unsigned>(at[1]) << 16;
  }
  if (TYPE == 16) return {{from_half(bits & 0xffffu), from_half(bits >> 16)}};
  return {{float_of(bits << 16), float_of(bits & 0xffff0000u)}};
}

template <int TYPE>
DEVICE unsigned short shortened(float x) {
  return TYPE == 16 ? to_half(x) : to_bfloat16(x);
}

template <int TYPE>
DEVICE void write(void* array, long long place, int count, bool paired, float x, float y) {
  if (count == 0) return;
  if (TYPE == 32) {
    float* at = static_cast<float*>(array) + place;
    if (paired) {
      *reinterpret_cast<Pair*>(__builtin_assume_aligned(at, 8)) = {{x, y}};
      return;
    }
    at[0] = x;
    if (count > 1) at[1] = y;
    return;
  }
  unsigned short* at = static_cast<unsigned short*>(array) + place;
  const unsigned first = shortened<TYPE>(x), second = shortened<TYPE>(y);
  if (paired) {
    *reinterpret_cast<unsigned*>(at) = first | second << 16;
    return;
  }
  at[0] = static_cast<unsigned short>(first);
  if (count > 1) at[1] = static_cast<unsigned short>(second);
}

// Which synapses and numbers a lane has.
struct Place {
  Sizes size;
  int outputs, blocks, warp, g, t, input, count;
  long long member, part;
  bool busy, paired;

  DEVICE explicit Place(const Sizes& size) : size(size) {
    outputs = size.tiles * size.rows;
    blocks = (size.inputs + BLOCK_INPUTS - 1) / BLOCK_INPUTS;
    part = blockIdx.x;
    member = part / blocks;
    warp = threadIdx.x / 32;
    g = threadIdx.x % 32 / 4, t = threadIdx.x % 4;
    const int first = static_cast<int>(part % blocks) * BLOCK_INPUTS + warp * WARP_INPUTS;
    input = first + 2 * t;
    const int left = size.inputs - input;
    count = left < 0 ? 0 : left < 2 ? left : 2;
    busy = first < size.inputs;
    paired = size.inputs % 2 == 0;
  }

  DEVICE int number(int q) const { return 8 * q + g; }

  DEVICE int count_of(int q) const { return number(q) < N ? count : 0; }
};

// Where in the states the numbers of this lane's first synapse with one output unit after the other are.
struct Walk {
  long long first, step, to_next_tile;  // of number g; how far it is from there to number g + 8
  int row, rows, inputs;

  DEVICE explicit Walk(const Place& at) : row(0), rows(at.size.rows), inputs(at.size.inputs) {
    const long long number = static_cast<long long>(rows) * inputs;  // from one number to the next
    first = (at.member * at.size.tiles * N + at.g) * number + at.input;
    step = 8 * number;
    to_next_tile = (N - 1) * number;
  }

  DEVICE void advance() {
    first += inputs;
    if (++row < rows) return;
    row = 0;
    first += to_next_tile;
  }
};

template <int TYPE>
DEVICE void read_all(const Place& at, const Walk& walk, const void* array, float (&x)[K][2]) {
#pragma unroll
  for (int q = 0; q < K; ++q) {
    const Pair pair = read<TYPE>(array, walk.first + q * walk.step, at.count_of(q), at.paired);
    x[q][0] = pair.of[0], x[q][1] = pair.of[1];
  }
}

template <int TYPE>
DEVICE void write_all(const Place& at, const Walk& walk, void* array, const float (&x)[K][2]) {
#pragma unroll
  for (int q = 0; q < K; ++q)
    write<TYPE>(array, walk.first + q * walk.step, at.count_of(q), at.paired, x[q][0], x[q][1]);
}

}  // namespace
