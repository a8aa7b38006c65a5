// Ticks of all synapses of a dense layer on a CPU, and their derivatives: what `native.py` compiles.
//
// One visit, for every synapse (a, b) between input unit a and output unit b and for T micro ticks:
//
//     u = W h + x_a + y_b                        W [4N, N], x_a and y_b [4N]: what the units' messages add
//     i, g, f, o = tanh(u)                       sigmoid(v) = (1 + tanh(v / 2)) / 2; halves and offsets are in W, x, y
//     c' = (1 + f) / 2 c + (1 + i) / 2 g         h' = (1 + o) / 2 tanh(c')
//
// and at its end the means over a and over b of what is sent: of h itself, as messages are linear in it, or with
// layer norm of n = (z - mean z) r, z = K^T h + k and r = (var z + epsilon)^(-1/2), over the M channels of z, with a
// K and a k for each of the two directions. Let H = dL/dh' and C = dL/dc'. Backwards through one tick
//
//     C += H (1 + o) / 2 (1 - tanh(c')^2)
//     U_o = H tanh(c') / 2 (1 - o^2)             U_f = C c / 2 (1 - f^2)
//     U_i = C g / 2 (1 - i^2)                    U_g = C (1 + i) / 2 (1 - g^2)
//     C <- C (1 + f) / 2                         H <- W^T U
//     dW += U h^T                                dx_a += U        dy_b += U
//
// and through the norm, with D = dL/dn: dz = r (D - mean D - n mean(D n)), H += K dz, dK += h dz^T, dk += dz.
//
// Where things live: V vectors of L synapses each that share b are a block. Its h, c and gates stay in the first
// cache during all ticks, its matrix products in registers: 4 rows of W times V vectors are 4 V sums. Blocks go
// over b inside of a, so that x_a is read, and dx_a written, once. Backwards a block is ticked again first, its
// gates kept; dW has a vector of partial sums for each of its numbers, added up at the end: no order depends on
// anything but the sizes.
//
// Cost per synapse and tick: 4N N multiply-adds and 5N tanh forward; backwards both again, and 8N N more. A layer
// norm adds 2N M per visit, and backwards 6N M.

#include "native.h"

namespace {

// Tick once: h is read, the new h goes to h_new. With KEEP the tanh of all gates and of the cell are kept.
template <int V, bool KEEP>
INLINE void tick(const float (*packed)[N][4], const Vec (*x)[V], const float* y, const Vec (*h)[V], Vec (*c)[V],
                 Vec (*h_new)[V], Vec (*gates)[V], Vec (*cell)[V]) {
  for (int n = 0; n < N; ++n) {
    Vec u[4][V];
#pragma GCC unroll 4
    for (int j = 0; j < 4; ++j)
#pragma GCC unroll 4
      for (int v = 0; v < V; ++v) u[j][v] = x[j * N + n][v] + y[j * N + n];
#pragma GCC unroll 4
    for (int m = 0; m < N; ++m)
#pragma GCC unroll 4
      for (int j = 0; j < 4; ++j)
#pragma GCC unroll 4
        for (int v = 0; v < V; ++v) u[j][v] += packed[n][m][j] * h[m][v];
#pragma GCC unroll 4
    for (int v = 0; v < V; ++v) {
      const Cell now = cell_of(u[0][v], u[1][v], u[2][v], u[3][v], c[n][v]);
      c[n][v] = now.c;
      h_new[n][v] = now.h;
      if (KEEP) {
        gates[n][v] = now.gates.i, gates[N + n][v] = now.gates.g;
        gates[2 * N + n][v] = now.gates.f, gates[3 * N + n][v] = now.gates.o;
        cell[n][v] = now.gates.squashed;
      }
    }
  }
}

struct Forward {
  Sizes size;
  int64_t ticks;
  const float *W, *x, *y, *h, *c, *senders;  // senders: K and k forward, then backward
  float *h_new, *c_new, *forward, *backward;  // the means of what is sent, [O, SENT] and [SENT, I]
};

template <int V>
INLINE void load_rows(Vec (*to)[V], int rows, const float* from, int64_t stride, int64_t count) {
  for (int k = 0; k < rows; ++k)
    for (int v = 0; v < V; ++v) to[k][v] = load(from + k * stride + v * L, count - v * L);
}

template <int V>
INLINE void store_rows(float* to, int rows, const Vec (*from)[V], int64_t stride, int64_t count) {
  for (int k = 0; k < rows; ++k)
    for (int v = 0; v < V; ++v) store(to + k * stride + v * L, from[k][v], count - v * L);
}

INLINE float output_part(const float* y, const Sizes& size, int64_t b, int k) {  // of [G, 4N, R]
  return y[(b / size.rows * GATES + k) * size.rows + b % size.rows];
}

template <int V>
__attribute__((noinline)) void forward_block(const Forward& at, const float (*packed)[N][4], int64_t a) {
  const Sizes& size = at.size;
  const int64_t count = size.inputs - a < V * L ? size.inputs - a : V * L;
  Vec x[GATES][V], h[2][N][V], c[N][V], messages[2][CHANNELS][V], r[V], total[SENT][V] = {};
  float y[GATES];
  load_rows<V>(x, GATES, at.x + a, size.inputs, count);
  for (int64_t b = 0; b < size.outputs(); ++b) {
    const int64_t place = size.synapses(b) + a;
    load_rows<V>(h[0], N, at.h + place, size.stride(), count);
    load_rows<V>(c, N, at.c + place, size.stride(), count);
    for (int k = 0; k < GATES; ++k) y[k] = output_part(at.y, size, b, k);
    for (int64_t t = 0; t < at.ticks; ++t)
      tick<V, false>(packed, x, y, h[t % 2], c, h[(t + 1) % 2], nullptr, nullptr);
    const Vec(*last)[V] = h[at.ticks % 2];
    store_rows<V>(at.h_new + place, N, last, size.stride(), count);
    store_rows<V>(at.c_new + place, N, c, size.stride(), count);
    if (NORM)
      for (int way = 0; way < 2; ++way) normed_messages<V>(at.senders + way * SENDER, last, messages[way], r);
    const Vec(*ahead)[V] = NORM ? messages[0] : last;
    const Vec(*back)[V] = NORM ? messages[1] : last;
    for (int k = 0; k < SENT; ++k) {
      Vec over_inputs{};
      for (int v = 0; v < V; ++v) {
        over_inputs += count >= V * L ? ahead[k][v] : keep(ahead[k][v], count - v * L);
        total[k][v] += back[k][v];
      }
      at.forward[b * SENT + k] += sum(over_inputs) / size.inputs;
    }
  }
  for (int k = 0; k < SENT; ++k)
    for (int v = 0; v < V; ++v)
      store(at.backward + k * size.inputs + a + v * L, total[k][v] / float(size.outputs()), count - v * L);
}

// Call `block` with its number of vectors at the first input unit of each block. Blocks are as few as can be, and of
// like size: a block of one vector has too few sums at a time to keep multipliers busy.
template <typename Block>
INLINE void blocks(int64_t inputs, Block block) {
  int64_t vectors = (inputs + L - 1) / L;
  int64_t left = (vectors + MOST - 1) / MOST;
  for (int64_t a = 0; left > 0; --left) {
    const int64_t here = (vectors + left - 1) / left;
    if (here == 1) block(std::integral_constant<int, 1>(), a);
    if (MOST > 1 && here == 2) block(std::integral_constant<int, 2>(), a);
    if (MOST > 2 && here == 3) block(std::integral_constant<int, 3>(), a);
    if (MOST > 3 && here == 4) block(std::integral_constant<int, 4>(), a);
    vectors -= here;
    a += here * L;
  }
}

void forward(const Forward& at) {
  float packed[N][N][4];
  pack(at.W, packed);
  std::memset(at.forward, 0, at.size.outputs() * SENT * sizeof(float));
  blocks(at.size.inputs, [&](auto V, int64_t a) { forward_block<V()>(at, packed, a); });
}

struct Backward {
  Sizes size;
  int64_t ticks;
  const float *W, *x, *y, *h, *c, *senders, *dh_new, *dc_new, *dforward, *dbackward;
  float *dW, *dx, *dy, *dh, *dc, *dsenders;
};

// Sums over lanes are left for the end.
struct Sums {
  Vec W[GATES][N], senders[2][N + 1][CHANNELS];
};

// What a block keeps of a tick, for the way back.
template <int V>
struct Tick {
  Vec h[N][V], c[N][V], gates[GATES][V], cell[N][V], du[GATES][V];
};

// dW += U h^T, lane by lane
template <int V>
INLINE void outer_product(const Tick<V>* kept, int64_t ticks, Vec (*dW)[N]) {
  for (int k = 0; k < GATES; k += 4)
    for (int n = 0; n < N; n += ROWS) {
      Vec total[4][ROWS];
#pragma GCC unroll 4
      for (int i = 0; i < 4; ++i)
#pragma GCC unroll 4
        for (int j = 0; j < ROWS; ++j) total[i][j] = dW[k + i][n + j];
      for (int64_t t = 0; t < ticks; ++t)
#pragma GCC unroll 4
        for (int v = 0; v < V; ++v)
#pragma GCC unroll 4
          for (int i = 0; i < 4; ++i)
#pragma GCC unroll 4
            for (int j = 0; j < ROWS; ++j) total[i][j] += kept[t].du[k + i][v] * kept[t].h[n + j][v];
#pragma GCC unroll 4
      for (int i = 0; i < 4; ++i)
#pragma GCC unroll 4
        for (int j = 0; j < ROWS; ++j) dW[k + i][n + j] = total[i][j];
    }
}

template <int V>
__attribute__((noinline)) void backward_block(const Backward& at, const float (*packed)[N][4], Sums& sums, void* memory,
                                              int64_t a) {
  const Sizes& size = at.size;
  const int64_t count = size.inputs - a < V * L ? size.inputs - a : V * L;
  Tick<V>* kept = static_cast<Tick<V>*>(memory);
  Vec x[GATES][V], h[N][V], c[N][V], H[N][V], C[N][V], back[SENT][V], dx[GATES][V] = {};
  float y[GATES];
  load_rows<V>(x, GATES, at.x + a, size.inputs, count);
  load_rows<V>(back, SENT, at.dbackward + a, size.inputs, count);
  for (int k = 0; k < SENT; ++k)
    for (int v = 0; v < V; ++v) back[k][v] /= float(size.outputs());
  for (int64_t b = 0; b < size.outputs(); ++b) {
    const int64_t place = size.synapses(b) + a;
    load_rows<V>(kept[0].h, N, at.h + place, size.stride(), count);
    load_rows<V>(c, N, at.c + place, size.stride(), count);
    for (int k = 0; k < GATES; ++k) y[k] = output_part(at.y, size, b, k);
    for (int64_t t = 0; t < at.ticks; ++t) {
      std::memcpy(kept[t].c, c, sizeof(c));
      tick<V, true>(packed, x, y, kept[t].h, c, t + 1 < at.ticks ? kept[t + 1].h : h, kept[t].gates, kept[t].cell);
    }
    load_rows<V>(H, N, at.dh_new + place, size.stride(), count);
    load_rows<V>(C, N, at.dc_new + place, size.stride(), count);
    if (NORM) {
      Vec D[2][CHANNELS][V];
      for (int m = 0; m < CHANNELS; ++m)
        for (int v = 0; v < V; ++v) {
          D[0][m][v] = all(at.dforward[b * SENT + m] / size.inputs);
          D[1][m][v] = back[m][v];
        }
      for (int way = 0; way < 2; ++way)
        normed_gradient<V>(at.senders + way * SENDER, h, D[way], count, H, sums.senders[way]);
    } else {
      for (int n = 0; n < N; ++n)
        for (int v = 0; v < V; ++v) {
          H[n][v] += at.dforward[b * SENT + n] / size.inputs + back[n][v];
          if (count < V * L) H[n][v] = keep(H[n][v], count - v * L);
        }
    }
    for (int64_t t = at.ticks - 1; t >= 0; --t) {
      Tick<V>& now = kept[t];
      for (int n = 0; n < N; ++n)
#pragma GCC unroll 4
        for (int v = 0; v < V; ++v) {
          const Vec i = now.gates[n][v], g = now.gates[N + n][v], f = now.gates[2 * N + n][v];
          const Vec o = now.gates[3 * N + n][v], cell = now.cell[n][v];
          const Vec D = C[n][v] + H[n][v] * (0.5f + 0.5f * o) * (1.0f - cell * cell);
          now.du[n][v] = 0.5f * D * g * (1.0f - i * i);
          now.du[N + n][v] = D * (0.5f + 0.5f * i) * (1.0f - g * g);
          now.du[2 * N + n][v] = 0.5f * D * now.c[n][v] * (1.0f - f * f);
          now.du[3 * N + n][v] = 0.5f * H[n][v] * cell * (1.0f - o * o);
          C[n][v] = D * (0.5f + 0.5f * f);
        }
      transposed_product<V>(at.W, now.du, H);
    }
    store_rows<V>(at.dh + place, N, H, size.stride(), count);
    store_rows<V>(at.dc + place, N, C, size.stride(), count);
    outer_product<V>(kept, at.ticks, sums.W);
    for (int k = 0; k < GATES; ++k) {
      Vec over_inputs{};
      for (int v = 0; v < V; ++v) {
        Vec over_ticks = kept[0].du[k][v];
        for (int64_t t = 1; t < at.ticks; ++t) over_ticks += kept[t].du[k][v];
        dx[k][v] += over_ticks;
        over_inputs += over_ticks;
      }
      at.dy[(b / size.rows * GATES + k) * size.rows + b % size.rows] += sum(over_inputs);
    }
  }
  store_rows<V>(at.dx + a, GATES, dx, size.inputs, count);
}

void backward(const Backward& at) {
  float packed[N][N][4];
  pack(at.W, packed);
  scratch.start();
  Tick<MOST>* const kept = scratch.take<Tick<MOST>>(at.ticks);
  Sums* const sums = scratch.zeros<Sums>(1);
  std::memset(at.dy, 0, at.size.outputs() * GATES * sizeof(float));
  blocks(at.size.inputs, [&](auto V, int64_t a) { backward_block<V()>(at, packed, *sums, kept, a); });
  for (int k = 0; k < GATES; ++k)
    for (int n = 0; n < N; ++n) at.dW[k * N + n] = sum(sums->W[k][n]);
  for (int way = 0; way < 2; ++way)
    for (int k = 0; k <= N; ++k)
      for (int m = 0; m < CHANNELS; ++m)
        at.dsenders[way * SENDER + k * CHANNELS + m] = sum(sums->senders[way][k][m]);
}

ffi::Error forward_all(int64_t ticks, Floats W, Floats x, Floats y, Floats h, Floats c, Floats senders, Result h_new,
                       Result c_new, Result forward_mean, Result backward_mean) {
  const Sizes size = sizes_of(h);
  const int64_t inputs = size.inputs, outputs = size.outputs(), state = N * inputs * outputs;
  for (int64_t p = 0; p < size.members; ++p)
    forward({size, ticks, W.typed_data() + p * GATES * N, x.typed_data() + p * GATES * inputs,
             y.typed_data() + p * GATES * outputs, h.typed_data() + p * state, c.typed_data() + p * state,
             senders.typed_data() + p * 2 * SENDER, h_new->typed_data() + p * state, c_new->typed_data() + p * state,
             forward_mean->typed_data() + p * outputs * SENT, backward_mean->typed_data() + p * SENT * inputs});
  return ffi::Error::Success();
}

ffi::Error backward_all(int64_t ticks, Floats W, Floats x, Floats y, Floats h, Floats c, Floats senders, Floats dh_new,
                        Floats dc_new, Floats dforward, Floats dbackward, Result dW, Result dx, Result dy, Result dh,
                        Result dc, Result dsenders) {
  const Sizes size = sizes_of(h);
  const int64_t inputs = size.inputs, outputs = size.outputs(), state = N * inputs * outputs;
  for (int64_t p = 0; p < size.members; ++p)
    backward({size, ticks, W.typed_data() + p * GATES * N, x.typed_data() + p * GATES * inputs,
              y.typed_data() + p * GATES * outputs, h.typed_data() + p * state, c.typed_data() + p * state,
              senders.typed_data() + p * 2 * SENDER, dh_new.typed_data() + p * state, dc_new.typed_data() + p * state,
              dforward.typed_data() + p * outputs * SENT, dbackward.typed_data() + p * SENT * inputs,
              dW->typed_data() + p * GATES * N, dx->typed_data() + p * GATES * inputs,
              dy->typed_data() + p * GATES * outputs, dh->typed_data() + p * state, dc->typed_data() + p * state,
              dsenders->typed_data() + p * 2 * SENDER});
  return ffi::Error::Success();
}

}  // namespace

XLA_FFI_DEFINE_HANDLER_SYMBOL(vsml_forward, forward_all,
                              ffi::Ffi::Bind().Attr<int64_t>("micro_ticks") FLOATS FLOATS FLOATS FLOATS FLOATS FLOATS
                                  RESULT RESULT RESULT RESULT);
XLA_FFI_DEFINE_HANDLER_SYMBOL(vsml_backward, backward_all,
                              ffi::Ffi::Bind().Attr<int64_t>("micro_ticks") FLOATS FLOATS FLOATS FLOATS FLOATS FLOATS
                                  FLOATS FLOATS FLOATS FLOATS RESULT RESULT RESULT RESULT RESULT RESULT);
