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

// u <- W h + x + y, the four gates of number n of the states.
template <int V>
INLINE void gates_of(const Packed* packed, int n, const Vec (*x)[V], const float* y, const Factor (*h)[V], Vec (*u)[V]) {
#pragma GCC unroll 4
  for (int j = 0; j < 4; ++j)
#pragma GCC unroll 4
    for (int v = 0; v < V; ++v) u[j][v] = x[j * N + n][v] + y[j * N + n];
#pragma GCC unroll 4
  for (int m = 0; m < H_FACTORS; ++m) multiply_add<4, V>(u, packed[n][m], h[m]);
}

// What the way back through a tick needs.
template <int V>
struct Past {
  Vec c[N][V];
  Gates gates[N][V];
};

// Tick once: h is read, the new h goes to h_new. With KEEP what the way back needs is kept.
template <int V, bool KEEP>
INLINE void tick(const Packed* packed, const Vec (*x)[V], const float* y, const Vec (*h)[V], Vec (*c)[V],
                 Vec (*h_new)[V], Past<V>* past) {
  Factor room[TERMS > 1 ? H_FACTORS : 1][V];
  const Factor(*factor)[V] = paired<V>(h, N, room);
  for (int n = 0; n < N; ++n) {
    Vec u[4][V];
    gates_of<V>(packed, n, x, y, factor, u);
#pragma GCC unroll 4
    for (int v = 0; v < V; ++v) {
      const Cell now = cell_of(u[0][v], u[1][v], u[2][v], u[3][v], c[n][v]);
      if (KEEP) past->c[n][v] = c[n][v], past->gates[n][v] = now.gates;
      c[n][v] = now.c;
      h_new[n][v] = now.h;
    }
  }
}

struct Forward {
  Sizes size;
  int64_t ticks;
  const float *W, *x, *y, *h, *c, *senders;  // senders: K and k forward, then backward
  float *h_new, *c_new, *forward, *backward;  // the means of what is sent, [O, SENT] and [SENT, I]
  float* before;                              // a copy of h and behind it of c, or null
};

template <int V>
INLINE void load_rows(Vec (*to)[V], int rows, const float* from, int64_t stride, int64_t count) {
  for (int k = 0; k < rows; ++k)
    for (int v = 0; v < V; ++v) to[k][v] = load(from + k * stride + v * L, count - v * L);
}

// Let rows come closer that are needed soon: there are too many for the processor to see what comes next.
template <int V>
INLINE void fetch_rows(int rows, const float* from, int64_t stride) {
  for (int k = 0; k < rows; ++k)
    for (int v = 0; v < V; ++v) __builtin_prefetch(from + k * stride + v * L);
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
__attribute__((noinline)) void forward_block(const Forward& at, const Packed* packed, int64_t a) {
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
    if (at.before) {
      store_rows<V>(at.before + place, N, h[0], size.stride(), count);
      store_rows<V>(at.before + size.state() + place, N, c, size.stride(), count);
    }
    if (b + 1 < size.outputs()) {
      const int64_t next = size.synapses(b + 1) + a;
      for (const float* states : {at.h, at.c}) fetch_rows<V>(N, states + next, size.stride());
    }
    for (int64_t t = 0; t < at.ticks; ++t)
      tick<V, false>(packed, x, y, h[t % 2], c, h[(t + 1) % 2], nullptr);
    const Vec(*last)[V] = h[at.ticks % 2];
    store_rows<V>(at.h_new + place, N, last, size.stride(), count);
    store_rows<V>(at.c_new + place, N, c, size.stride(), count);
    if (NORM)
      for (int way = 0; way < 2; ++way) normed_messages<V>(at.senders + way * SENDER, last, messages[way], r);
    const Vec(*ahead)[V] = NORM ? messages[0] : last;
    const Vec(*back)[V] = NORM ? messages[1] : last;
    Vec over_inputs[SENT] = {};
    float sums[SENT];
    for (int k = 0; k < SENT; ++k)
      for (int v = 0; v < V; ++v) {
        over_inputs[k] += count >= V * L ? ahead[k][v] : keep(ahead[k][v], count - v * L);
        total[k][v] += back[k][v];
      }
    sums_of_rows(over_inputs, SENT, sums);
    for (int k = 0; k < SENT; ++k) at.forward[b * SENT + k] += sums[k] / size.inputs;
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
  Packed packed[N];
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

// What derivatives of W are made of: h before a tick, and U. As they are, or as factors of sums over lanes.
template <typename Number, int V>
struct Products {
  Number h[N][V], du[GATES][V];
};

template <int V>
using Kept = Products<Vec, V>;

template <int V>
using Joined = Products<Factor, factors(V)>;

constexpr int OUTPUTS_AT_ONCE = 5;  // whose share of dW is added at once, as dW is too large for the first cache

template <int V, int W>
INLINE void join_rows(const Vec (*x)[V], int rows, Factor (*joined)[W]) {
  for (int k = 0; k < rows; ++k)
#pragma GCC unroll 4
    for (int v = 0; v < V; v += TERMS) joined[k][v / TERMS] = join(x[k][v], v + 1 < V ? x[k][v + 1] : Vec{});
}

// Numbers as factors: themselves, or `room` filled with pairs.
template <int V>
INLINE const Joined<V>* joined(const Kept<V>* kept, int64_t count, Joined<V>* room) {
  if constexpr (TERMS == 1) return kept;
  for (int64_t p = 0; p < count; ++p) {
    join_rows<V>(kept[p].h, N, room[p].h);
    join_rows<V>(kept[p].du, GATES, room[p].du);
  }
  return room;
}

// Memory for a block.
struct Room {
  Past<MOST>* past;       // of the ticks
  Kept<MOST>* kept;       // of the ticks of some output units
  Joined<MOST>* joined;   // likewise
};

// total += U h^T, of 4 rows of U and some of h.
template <int V>
INLINE void add_outer(const Joined<V>& from, int k, int n, int v, Vec (*total)[ROWS]) {
  Factor h[ROWS];
#pragma GCC unroll 4
  for (int j = 0; j < ROWS; ++j) h[j] = from.h[n + j][v], hold(h[j]);
#pragma GCC unroll 4
  for (int i = 0; i < 4; ++i) {
    Factor u = from.du[k + i][v];
    hold(u);
#pragma GCC unroll 4
    for (int j = 0; j < ROWS; ++j) total[i][j] = multiply_add(total[i][j], u, h[j]);
  }
}

// dW += U h^T, lane by lane
template <int V>
INLINE void outer_product(const Joined<V>* products, int64_t count, Vec (*dW)[N]) {
  for (int k = 0; k < GATES; k += 4)
    for (int n = 0; n < N; n += ROWS) {
      Vec total[4][ROWS];
#pragma GCC unroll 4
      for (int i = 0; i < 4; ++i)
#pragma GCC unroll 4
        for (int j = 0; j < ROWS; ++j) total[i][j] = dW[k + i][n + j];
      for (int64_t p = 0; p < count; ++p)
#pragma GCC unroll 4
        for (int v = 0; v < factors(V); ++v)
          add_outer<V>(products[p], k, n, v, total);
#pragma GCC unroll 4
      for (int i = 0; i < 4; ++i)
#pragma GCC unroll 4
        for (int j = 0; j < ROWS; ++j) dW[k + i][n + j] = total[i][j];
    }
}

// U and C of a tick, from H and C: of number n, with the tanh of its gates.
template <int V>
INLINE void go_back(const Gates* gates, int n, const Vec (*c)[V], const Vec (*H)[V], Vec (*C)[V], Vec (*du)[V]) {
#pragma GCC unroll 4
  for (int v = 0; v < V; ++v) {
    const Slopes slopes = slopes_of(gates[v], c[n][v], H[n][v], C[n][v]);
    du[n][v] = slopes.i, du[N + n][v] = slopes.g, du[2 * N + n][v] = slopes.f, du[3 * N + n][v] = slopes.o;
    C[n][v] = slopes.c;
  }
}

// Tick and go back at once: nothing of the last tick has to be kept where messages are linear in its h.
template <int V>
INLINE void tick_and_back(const Packed* packed, const Vec (*x)[V], const float* y, const Vec (*h)[V], const Vec (*c)[V],
                          const Vec (*H)[V], Vec (*C)[V], Vec (*du)[V]) {
  Factor room[TERMS > 1 ? H_FACTORS : 1][V];
  const Factor(*factor)[V] = paired<V>(h, N, room);
  for (int n = 0; n < N; ++n) {
    Vec u[4][V];
    Gates gates[V];
    gates_of<V>(packed, n, x, y, factor, u);
#pragma GCC unroll 4
    for (int v = 0; v < V; ++v) gates[v] = cell_of(u[0][v], u[1][v], u[2][v], u[3][v], c[n][v]).gates;
    go_back<V>(gates, n, c, H, C, du);
  }
}

// Add the derivatives of x and y of output units from b on, whose ticks are kept: sums over outputs, over inputs.
template <int V>
INLINE void add_messages(const Backward& at, const Kept<V>* kept, int64_t b, int64_t outputs, Vec (*dx)[V]) {
  const Sizes& size = at.size;
  for (int64_t unit = 0; unit < outputs; ++unit, ++b, kept += at.ticks) {
    Vec over_inputs[GATES];
    float sums[GATES];
    for (int k = 0; k < GATES; ++k) {
      over_inputs[k] = Vec{};
#pragma GCC unroll 4
      for (int v = 0; v < V; ++v) {
        Vec over_ticks = kept[0].du[k][v];
        for (int64_t t = 1; t < at.ticks; ++t) over_ticks += kept[t].du[k][v];
        dx[k][v] += over_ticks;
        over_inputs[k] += over_ticks;
      }
    }
    sums_of_rows(over_inputs, GATES, sums);
    float* dy = at.dy + b / size.rows * GATES * size.rows + b % size.rows;
    for (int k = 0; k < GATES; ++k) dy[k * size.rows] += sums[k];
  }
}

template <int V>
__attribute__((noinline)) void backward_block(const Backward& at, const Packed* packed, const Weight (*transposed)[N],
                                              Sums& sums, const Room& room, int64_t a) {
  const Sizes& size = at.size;
  const int64_t count = size.inputs - a < V * L ? size.inputs - a : V * L;
  const auto past = reinterpret_cast<Past<V>*>(room.past);
  const auto all_kept = reinterpret_cast<Kept<V>*>(room.kept);
  Vec x[GATES][V], h[N][V], c[N][V], H[N][V], C[N][V], back[SENT][V], dx[GATES][V] = {};
  float y[GATES], ahead[SENT];
  load_rows<V>(x, GATES, at.x + a, size.inputs, count);
  load_rows<V>(back, SENT, at.dbackward + a, size.inputs, count);
  for (int k = 0; k < SENT; ++k)
    for (int v = 0; v < V; ++v) back[k][v] /= float(size.outputs());
  int64_t outputs = 0;
  for (int64_t b = 0; b < size.outputs(); ++b) {
    const int64_t place = size.synapses(b) + a;
    Kept<V>* const kept = all_kept + outputs++ * at.ticks;
    load_rows<V>(kept[0].h, N, at.h + place, size.stride(), count);
    load_rows<V>(c, N, at.c + place, size.stride(), count);
    for (int k = 0; k < GATES; ++k) y[k] = output_part(at.y, size, b, k);
    for (int k = 0; k < SENT; ++k) ahead[k] = at.dforward[b * SENT + k] / size.inputs;
    if (b + 1 < size.outputs()) {
      const int64_t next = size.synapses(b + 1) + a;
      for (const float* states : {at.h, at.c, at.dh_new, at.dc_new}) fetch_rows<V>(N, states + next, size.stride());
    }
    for (int64_t t = 0; t < at.ticks - !NORM; ++t)
      tick<V, true>(packed, x, y, kept[t].h, c, t + 1 < at.ticks ? kept[t + 1].h : h, &past[t]);
    load_rows<V>(H, N, at.dh_new + place, size.stride(), count);
    load_rows<V>(C, N, at.dc_new + place, size.stride(), count);
    if (NORM) {
      Vec D[2][CHANNELS][V];
      for (int m = 0; m < CHANNELS; ++m)
        for (int v = 0; v < V; ++v) {
          D[0][m][v] = all(ahead[m]);
          D[1][m][v] = back[m][v];
        }
      for (int way = 0; way < 2; ++way)
        normed_gradient<V>(at.senders + way * SENDER, h, D[way], count, H, sums.senders[way]);
    } else {
      for (int n = 0; n < N; ++n)
        for (int v = 0; v < V; ++v) {
          H[n][v] += ahead[n] + back[n][v];
          if (count < V * L) H[n][v] = keep(H[n][v], count - v * L);
        }
    }
    for (int64_t t = at.ticks - 1; t >= 0; --t) {
      if (!NORM && t == at.ticks - 1)
        tick_and_back<V>(packed, x, y, kept[t].h, c, H, C, kept[t].du);
      else
        for (int n = 0; n < N; ++n) go_back<V>(past[t].gates[n], n, past[t].c, H, C, kept[t].du);
      transposed_product<V>(transposed, kept[t].du, H);
    }
    store_rows<V>(at.dh + place, N, H, size.stride(), count);
    store_rows<V>(at.dc + place, N, C, size.stride(), count);
    if (outputs == OUTPUTS_AT_ONCE || b + 1 == size.outputs()) {
      const auto room_joined = reinterpret_cast<Joined<V>*>(room.joined);
      add_messages<V>(at, all_kept, b + 1 - outputs, outputs, dx);
      outer_product<V>(joined<V>(all_kept, outputs * at.ticks, room_joined), outputs * at.ticks, sums.W);
      outputs = 0;
    }
  }
  store_rows<V>(at.dx + a, GATES, dx, size.inputs, count);
}

void backward(const Backward& at) {
  Packed packed[N];
  Weight transposed[GATE_FACTORS][N];
  pack(at.W, packed);
  pack_transposed(at.W, transposed);
  scratch.start();
  const int64_t kept = at.ticks * OUTPUTS_AT_ONCE;
  const Room room{scratch.take<Past<MOST>>(at.ticks), scratch.take<Kept<MOST>>(kept),
                  scratch.take<Joined<MOST>>(ROUNDED ? kept : 0)};
  Sums* const sums = scratch.zeros<Sums>(1);
  std::memset(at.dy, 0, at.size.outputs() * GATES * sizeof(float));
  blocks(at.size.inputs, [&](auto V, int64_t a) {
    backward_block<V()>(at, packed, transposed, *sums, room, a);
  });
  for (int k = 0; k < GATES; ++k)
    for (int n = 0; n < N; ++n) at.dW[k * N + n] = sum(sums->W[k][n]);
  for (int way = 0; way < 2; ++way)
    for (int k = 0; k <= N; ++k)
      for (int m = 0; m < CHANNELS; ++m)
        at.dsenders[way * SENDER + k * CHANNELS + m] = sum(sums->senders[way][k][m]);
}

void visit_all(int64_t ticks, Floats W, Floats x, Floats y, Floats h, Floats c, Floats senders, Result h_new,
               Result c_new, Result forward_mean, Result backward_mean, float* before) {
  const Sizes size = sizes_of(h);
  const int64_t inputs = size.inputs, outputs = size.outputs(), state = size.state();
  for (int64_t p = 0; p < size.members; ++p)
    forward({size, ticks, W.typed_data() + p * GATES * N, x.typed_data() + p * GATES * inputs,
             y.typed_data() + p * GATES * outputs, h.typed_data() + p * state, c.typed_data() + p * state,
             senders.typed_data() + p * 2 * SENDER, h_new->typed_data() + p * state, c_new->typed_data() + p * state,
             forward_mean->typed_data() + p * outputs * SENT, backward_mean->typed_data() + p * SENT * inputs,
             before ? before + p * 2 * state : nullptr});
}

ffi::Error forward_all(int64_t ticks, Floats W, Floats x, Floats y, Floats h, Floats c, Floats senders, Result h_new,
                       Result c_new, Result forward_mean, Result backward_mean) {
  visit_all(ticks, W, x, y, h, c, senders, h_new, c_new, forward_mean, backward_mean, nullptr);
  return ffi::Error::Success();
}

// As forward_all; h and c, whose place the new ones take, are copied on the way, [2, G, N, R, I].
ffi::Error remember_all(int64_t ticks, Floats W, Floats x, Floats y, Floats h, Floats c, Floats senders, Result h_new,
                         Result c_new, Result forward_mean, Result backward_mean, Result before) {
  visit_all(ticks, W, x, y, h, c, senders, h_new, c_new, forward_mean, backward_mean, before->typed_data());
  return ffi::Error::Success();
}

ffi::Error backward_all(int64_t ticks, Floats W, Floats x, Floats y, Floats h, Floats c, Floats senders, Floats dh_new,
                        Floats dc_new, Floats dforward, Floats dbackward, Result dW, Result dx, Result dy, Result dh,
                        Result dc, Result dsenders) {
  const Sizes size = sizes_of(h);
  const int64_t inputs = size.inputs, outputs = size.outputs(), state = size.state();
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
XLA_FFI_DEFINE_HANDLER_SYMBOL(vsml_remember, remember_all,
                              ffi::Ffi::Bind().Attr<int64_t>("micro_ticks") FLOATS FLOATS FLOATS FLOATS FLOATS FLOATS
                                  RESULT RESULT RESULT RESULT RESULT);
XLA_FFI_DEFINE_HANDLER_SYMBOL(vsml_backward, backward_all,
                              ffi::Ffi::Bind().Attr<int64_t>("micro_ticks") FLOATS FLOATS FLOATS FLOATS FLOATS FLOATS
                                  FLOATS FLOATS FLOATS FLOATS RESULT RESULT RESULT RESULT RESULT RESULT);
