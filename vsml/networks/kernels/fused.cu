// Ticks of all synapses of a dense layer in one CUDA kernel, and their derivatives: what `fused.py` compiles.
//
// The equations, the layout and the cost are in fused.py. The compiler is given STATE_SIZE (N), MESSAGE_SIZE (M),
// TICKS, and H_TYPE and C_TYPE: 32 for float, 16 for half, 17 for bfloat16. NVRTC compiles this text for a GPU. With
// EMULATED a C++ compiler makes of it what `emulated.h` runs on a CPU.
//
// A warp has 8 input units, and with each output unit in turn their 8 synapses. Lane 4 g + t has the numbers 8 q + g
// of the synapses 2 t and 2 t + 1, for all q < K = NP / 8: h, c, and what enters their gates. That is how tensor cores
// hand out a product of 16 x 8 numbers. Row g of product (q, p) is gate 2 p of number 8 q + g, row g + 8 is gate
// 2 p + 1, so that a lane gets all four gates of its numbers.

#include "fused.h"

#ifdef EMULATED
#include "emulated.h"
#else
#include "device.h"
#endif

namespace {

constexpr int N = STATE_SIZE, M = MESSAGE_SIZE;
constexpr int K = (N + 7) / 8;  // numbers of a synapse that a lane has
constexpr int NP = 8 * K;
constexpr int THREADS = 32 * WARPS;
constexpr int CHUNK = 4;             // output units whose sums over input units are added up at a time
constexpr int PAIRS = (K + 1) / 2;   // products of 16 rows that give NP numbers
constexpr int STEPS = NP / 2;        // products of depth 8 that add up 4 NP rows
constexpr float SCALE = -2.8853900817779268f;  // -2 log2(e): (1 + tanh z) / 2 = 1 / (1 + 2^(SCALE z))
constexpr float LARGE = 60.0f;                 // 2^LARGE squared is finite, and 1 + tanh z is 0 long before

}  // namespace

#include "products.h"
#include "states.h"

namespace {

// SCALE W3, as products take it.
struct Weights {
  Left of[K][2][K];

  DEVICE Weights(const Place& at, const float* hidden) {
    hidden += at.member * 4 * NP * NP;
#pragma unroll
    for (int q = 0; q < K; ++q)
#pragma unroll
      for (int p = 0; p < 2; ++p)
#pragma unroll
        for (int r = 0; r < K; ++r) {
          const float* row = hidden + (at.number(q) * 4 + 2 * p) * NP + 8 * r + at.t;
          of[q][p][r] = split({SCALE * row[0], SCALE * row[NP], SCALE * row[4], SCALE * row[NP + 4]});
        }
  }
};

// SCALE u for each of a lane's numbers and synapses.
DEVICE void messages(const Place& at, const Visit& from, float (&u)[K][4][2]) {
  const float* forward = from.forward + at.member * 4 * NP * M;
  const float* message = from.message + (at.member * at.size.inputs + at.input) * M;
#pragma unroll
  for (int q = 0; q < K; ++q)
#pragma unroll
    for (int k = 0; k < 4; ++k) {
      float sums[2] = {0.0f, 0.0f};
      for (int m = 0; m < M; ++m) {
        const float weight = SCALE * forward[(at.number(q) * 4 + k) * M + m];
        if (at.count > 0) sums[0] += weight * message[m];
        if (at.count > 1) sums[1] += weight * message[M + m];
      }
      u[q][k][0] = sums[0], u[q][k][1] = sums[1];
    }
}

// v of an output unit.
DEVICE void output_messages(const Place& at, const Visit& from, int b, float (&v)[K][4]) {
  const float* row = from.from_output + (at.member * at.outputs + b) * 4 * NP;
#pragma unroll
  for (int q = 0; q < K; ++q)
#pragma unroll
    for (int k = 0; k < 4; ++k) v[q][k] = row[at.number(q) * 4 + k];
}

// SCALE z of all gates; z[q][p] has gates 2 p and 2 p + 1 of both synapses. `memory` is the warp's, [8, stride].
DEVICE void gate_inputs(const Place& at, const Weights& weights, const float (&u)[K][4][2], const float (&v)[K][4],
                        const float (&h)[K][2], float* memory, int stride, float (&z)[K][2][4]) {
#pragma unroll
  for (int q = 0; q < K; ++q) {
    memory[(2 * at.t) * stride + at.number(q)] = h[q][0];
    memory[(2 * at.t + 1) * stride + at.number(q)] = h[q][1];
#pragma unroll
    for (int p = 0; p < 2; ++p)
#pragma unroll
      for (int i = 0; i < 4; ++i) z[q][p][i] = v[q][2 * p + i / 2] * SCALE + u[q][2 * p + i / 2][i % 2];
  }
  __syncwarp();
  Split right[2 * K];
#pragma unroll
  for (int i = 0; i < 2 * K; ++i) right[i] = split(memory[at.g * stride + at.t + 4 * i]);
  __syncwarp();
#pragma unroll
  for (int r = 0; r < K; ++r)
#pragma unroll
    for (int q = 0; q < K; ++q)
#pragma unroll
      for (int p = 0; p < 2; ++p) multiply(z[q][p], weights.of[q][p][r], right[2 * r], right[2 * r + 1]);
}

// The new c and h of a number, from SCALE z. Two reciprocals are shared by two factors each.
DEVICE void cell(float z_i, float z_g, float z_f, float z_o, float& h, float& c) {
  const float e_i = exponential_2(z_i), e_g = exponential_2(least(z_g, LARGE));
  const float f = reciprocal(1.0f + exponential_2(z_f));
  c = f * c + (1.0f - e_g) * reciprocal((1.0f + e_i) * (1.0f + e_g));
  const float e_o = exponential_2(z_o), e_c = exponential_2(least(SCALE * c, LARGE));
  h = (1.0f - e_c) * reciprocal((1.0f + e_o) * (1.0f + e_c));
}

DEVICE void tick(const float (&z)[K][2][4], float (&h)[K][2], float (&c)[K][2]) {
#pragma unroll
  for (int q = 0; q < K; ++q)
#pragma unroll
    for (int s = 0; s < 2; ++s) cell(z[q][0][s], z[q][0][2 + s], z[q][1][s], z[q][1][2 + s], h[q][s], c[q][s]);
}

// Add up what the warps have of some output units, always in the same order.
DEVICE void add_up(const float* sums, int width, int count, float* to) {
  __syncthreads();
#pragma unroll 1
  for (int i = threadIdx.x; i < count * width; i += THREADS) {
    float sum = 0.0f;
#pragma unroll
    for (int warp = 0; warp < WARPS; ++warp) sum += sums[warp * CHUNK * width + i];
    to[i] = sum;
  }
  __syncthreads();
}

// How many output units wait to be added up behind unit b; 0 where there will be more.
DEVICE int waiting(const Place& at, int b) {
  return b % CHUNK == CHUNK - 1 || b == at.outputs - 1 ? b % CHUNK + 1 : 0;
}

}  // namespace

extern "C" __global__ void __launch_bounds__(THREADS) visit(const Visit from, const Visited to) {
  constexpr int STRIDE = NP + 4;  // no two lanes meet in a bank
  __shared__ float memory[WARPS][WARP_INPUTS * STRIDE];
  __shared__ float sums[WARPS][CHUNK][NP];
  const Place at(from.size);
  const Weights weights(at, from.hidden);
  float u[K][4][2], h[K][2], c[K][2], total[K][2] = {};
  messages(at, from, u);
  Walk here(at);
  read_all<H_TYPE>(at, here, from.h, h);
  read_all<C_TYPE>(at, here, from.c, c);
  for (int b = 0; b < at.outputs; ++b) {
    float over_inputs[K] = {};
    if (at.busy) {
      float v[K][4], next_h[K][2] = {}, next_c[K][2] = {};
      output_messages(at, from, b, v);
      Walk next = here;
      next.advance();
      if (b + 1 < at.outputs) {  // on their way while this one is computed
        read_all<H_TYPE>(at, next, from.h, next_h);
        read_all<C_TYPE>(at, next, from.c, next_c);
      }
#pragma unroll
      for (int n = 0; n < TICKS; ++n) {
        float z[K][2][4];
        gate_inputs(at, weights, u, v, h, memory[at.warp], STRIDE, z);
        tick(z, h, c);
      }
      write_all<H_TYPE>(at, here, to.h, h);
      write_all<C_TYPE>(at, here, to.c, c);
      here = next;
#pragma unroll
      for (int q = 0; q < K; ++q) {
        float sum = (at.count > 0 ? h[q][0] : 0.0f) + (at.count > 1 ? h[q][1] : 0.0f);
        sum += exchanged(sum, 1);
        over_inputs[q] = sum + exchanged(sum, 2);
#pragma unroll
        for (int s = 0; s < 2; ++s) {
          total[q][s] += h[q][s];
          h[q][s] = next_h[q][s], c[q][s] = next_c[q][s];
        }
      }
    }
#pragma unroll
    for (int q = 0; q < K; ++q)
      if (at.t == 0) sums[at.warp][b % CHUNK][at.number(q)] = over_inputs[q];
    if (const int count = waiting(at, b))
      add_up(&sums[0][0][0], NP, count, to.sum_over_inputs + (at.part * at.outputs + b + 1 - count) * NP);
  }
#pragma unroll
  for (int q = 0; q < K; ++q)
#pragma unroll
    for (int s = 0; s < 2; ++s)
      if (s < at.count)
        to.sum_over_outputs[(at.member * at.size.inputs + at.input + s) * NP + at.number(q)] = total[q][s];
}

namespace {

// (1 + tanh z) / 2 from SCALE z
DEVICE float logistic(float z) { return reciprocal(1.0f + exponential_2(z)); }

// Go back through a tick: from the derivatives of the new h and c, those of the gates' inputs and of the old c.
DEVICE void cell_back(float z_i, float z_g, float z_f, float z_o, float c, float d_h, float& d_c, float (&d)[4]) {
  const float i = logistic(z_i), g = 2.0f * logistic(z_g) - 1.0f, f = logistic(z_f), o = logistic(z_o);
  const float squashed = 2.0f * logistic(SCALE * (f * c + i * g)) - 1.0f;
  const float D = d_c + d_h * o * (1.0f - squashed * squashed);
  d[0] = D * g * (2.0f * i * (1.0f - i));
  d[1] = D * i * (1.0f - g * g);
  d[2] = D * c * (2.0f * f * (1.0f - f));
  d[3] = d_h * squashed * (2.0f * o * (1.0f - o));
  d_c = D * f;
}

// A left side in shared memory. Where states are large, both parts of it would take too much.
template <bool LARGE_STATE>
struct Kept {
  Left both;
  DEVICE void operator=(const float (&x)[4]) { both = split(x); }
  DEVICE Left left() const { return both; }
};

template <>
struct Kept<true> {
  float of[4];
  DEVICE void operator=(const float (&x)[4]) {
    for (int i = 0; i < 4; ++i) of[i] = x[i];
  }
  DEVICE Left left() const { return split(of); }
};

// W3^T, as products take it, of all warps.
struct Transposed {
  Kept<(K > 3)> of[PAIRS][STEPS][32];
};

DEVICE void load(const Place& at, const float* hidden, Transposed& transposed) {
  hidden += at.member * 4 * NP * NP;
  for (int i = threadIdx.x / 32; i < PAIRS * STEPS; i += WARPS) {
    float entries[4];
#pragma unroll
    for (int e = 0; e < 4; ++e) {
      const int column = 16 * (i / STEPS) + at.g + 8 * (e % 2);
      const int row = at.t + 8 * (i % STEPS) + 4 * (e / 2);  // gate by gate, NP of each
      entries[e] = column < NP ? hidden[(row % NP * 4 + row / NP) * NP + column] : 0.0f;
    }
    transposed.of[i / STEPS][i % STEPS][threadIdx.x % 32] = entries;
  }
}

// D(h) = W3^T D(z)
DEVICE void return_through_weights(const Place& at, const Transposed& transposed, const float (&d)[K][2][4],
                                   float* memory, int stride, float (&d_h)[K][2]) {
#pragma unroll
  for (int q = 0; q < K; ++q)
#pragma unroll
    for (int s = 0; s < 2; ++s)
#pragma unroll
      for (int k = 0; k < 4; ++k) memory[(2 * at.t + s) * stride + k * NP + at.number(q)] = d[q][s][k];
  __syncwarp();
  float product[PAIRS][4] = {};
#pragma unroll
  for (int step = 0; step < STEPS; ++step) {
    const float* row = memory + at.g * stride + at.t + 8 * step;
    const Split first = split(row[0]), second = split(row[4]);
#pragma unroll
    for (int pair = 0; pair < PAIRS; ++pair)
      multiply(product[pair], transposed.of[pair][step][threadIdx.x % 32].left(), first, second);
  }
  __syncwarp();
#pragma unroll
  for (int q = 0; q < K; ++q)
#pragma unroll
    for (int s = 0; s < 2; ++s) d_h[q][s] = product[q / 2][q % 2 * 2 + s];
}

// The sum over four neighbouring lanes of entry t.
DEVICE float sum_of_own(const Place& at, const float (&x)[4]) {
  const bool upper = at.t & 2, odd = at.t & 1;
  const float first = (upper ? x[2] : x[0]) + exchanged(upper ? x[0] : x[2], 2);
  const float second = (upper ? x[3] : x[1]) + exchanged(upper ? x[1] : x[3], 2);
  return (odd ? second : first) + exchanged(odd ? first : second, 1);
}

}  // namespace

extern "C" __global__ void __launch_bounds__(THREADS) visit_back(const Visit from, const Cotangents back,
                                                                  const Gradient to) {
  constexpr int STRIDE = 4 * NP + 4;
  __shared__ Transposed transposed;
  __shared__ float memory[WARPS][WARP_INPUTS * STRIDE];
  __shared__ float sums[WARPS][CHUNK][4 * NP];
  const Place at(from.size);
  const Weights weights(at, from.hidden);
  load(at, from.hidden, transposed);
  __syncthreads();
  float u[K][4][2], d_u[K][4][2] = {}, d_hidden[K][2][K][4] = {}, d_total[K][2];
  messages(at, from, u);
#pragma unroll
  for (int q = 0; q < K; ++q)
#pragma unroll
    for (int s = 0; s < 2; ++s)
      d_total[q][s] = s < at.count ? back.sum_over_outputs[(at.member * at.size.inputs + at.input + s) * NP +
                                                           at.number(q)]
                                   : 0.0f;
  Walk here(at);
  for (int b = 0; b < at.outputs; ++b) {
    float d_v[K] = {};
    if (at.busy) {
      float v[K][4], h[TICKS][K][2], c[TICKS][K][2], d_h[K][2], d_c[K][2], d_both[K][4] = {};
      output_messages(at, from, b, v);
      read_all<H_TYPE>(at, here, from.h, h[0]);
      read_all<C_TYPE>(at, here, from.c, c[0]);
      read_all<H_TYPE>(at, here, back.h, d_h);
      read_all<C_TYPE>(at, here, back.c, d_c);
#pragma unroll
      for (int n = 0; n + 1 < TICKS; ++n) {
        float z[K][2][4];
        gate_inputs(at, weights, u, v, h[n], memory[at.warp], STRIDE, z);
#pragma unroll
        for (int q = 0; q < K; ++q)
#pragma unroll
          for (int s = 0; s < 2; ++s) c[n + 1][q][s] = c[n][q][s];
        tick(z, h[n + 1], c[n + 1]);
      }
#pragma unroll
      for (int q = 0; q < K; ++q) {
        const float d_mean = back.sum_over_inputs[(at.part * at.outputs + b) * NP + at.number(q)];
#pragma unroll
        for (int s = 0; s < 2; ++s)
          if (s < at.count) d_h[q][s] += d_mean + d_total[q][s];
      }
#pragma unroll
      for (int n = TICKS - 1; n >= 0; --n) {
        float z[K][2][4], d[K][2][4];
        gate_inputs(at, weights, u, v, h[n], memory[at.warp], STRIDE, z);
#pragma unroll
        for (int q = 0; q < K; ++q)
#pragma unroll
          for (int s = 0; s < 2; ++s) {
            cell_back(z[q][0][s], z[q][0][2 + s], z[q][1][s], z[q][1][2 + s], c[n][q][s], d_h[q][s], d_c[q][s],
                      d[q][s]);
#pragma unroll
            for (int k = 0; k < 4; ++k) {
              d_u[q][k][s] += d[q][s][k];
              d_both[q][k] += d[q][s][k];
            }
          }
        // D(W3) += D(z) h^T, over 8 synapses: both sides are where products want them. Tensor cores round sums
        // towards zero, which would add up over output units: they add 8 synapses only.
        Split right[K][2];
#pragma unroll
        for (int r = 0; r < K; ++r) right[r][0] = split(h[n][r][0]), right[r][1] = split(h[n][r][1]);
#pragma unroll
        for (int q = 0; q < K; ++q)
#pragma unroll
          for (int p = 0; p < 2; ++p) {
            const Left left = split({d[q][0][2 * p], d[q][0][2 * p + 1], d[q][1][2 * p], d[q][1][2 * p + 1]});
#pragma unroll
            for (int r = 0; r < K; ++r) {
              float sum[4] = {};
              multiply(sum, left, right[r][0], right[r][1]);
#pragma unroll
              for (int i = 0; i < 4; ++i) d_hidden[q][p][r][i] += sum[i];
            }
          }
        return_through_weights(at, transposed, d, memory[at.warp], STRIDE, d_h);
      }
      write_all<H_TYPE>(at, here, to.h, d_h);
      write_all<C_TYPE>(at, here, to.c, d_c);
      here.advance();
#pragma unroll
      for (int q = 0; q < K; ++q) d_v[q] = sum_of_own(at, d_both[q]);
    }
#pragma unroll
    for (int q = 0; q < K; ++q) sums[at.warp][b % CHUNK][at.number(q) * 4 + at.t] = d_v[q];
    if (const int count = waiting(at, b))
      add_up(&sums[0][0][0], 4 * NP, count, to.from_output + (at.part * at.outputs + b + 1 - count) * 4 * NP);
  }
#pragma unroll
  for (int q = 0; q < K; ++q)
#pragma unroll
    for (int s = 0; s < 2; ++s)
#pragma unroll
      for (int k = 0; k < 4; ++k)
        if (s < at.count)
          to.from_input[((at.member * at.size.inputs + at.input + s) * NP + at.number(q)) * 4 + k] = d_u[q][k][s];
  // One warp after the other adds its part of D(W3); nobody needs the transposed weights any more.
  static_assert(sizeof(Transposed) >= sizeof(float) * 4 * NP * NP, "D(W3) takes their place");
  float* const all = reinterpret_cast<float*>(&transposed);
  for (int warp = 0; warp < WARPS; ++warp) {
    if (at.warp == warp)
#pragma unroll
      for (int q = 0; q < K; ++q)
#pragma unroll
        for (int p = 0; p < 2; ++p)
#pragma unroll
          for (int r = 0; r < K; ++r)
#pragma unroll
            for (int i = 0; i < 4; ++i) {
              float& entry = all[(at.number(q) * 4 + 2 * p + i / 2) * NP + 8 * r + 2 * at.t + i % 2];
              entry = (warp > 0 ? entry : 0.0f) + d_hidden[q][p][r][i];
            }
    __syncthreads();
  }
  for (int i = threadIdx.x; i < 4 * NP * NP; i += THREADS) to.hidden[at.part * 4 * NP * NP + i] = all[i];
}
