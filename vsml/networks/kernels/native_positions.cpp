// Ticks of synapses that a convolution uses at P positions, on a CPU, and their derivatives; see native.cpp.
//
// One visit, for every synapse (a, b) between input unit a and output unit b of a patch. At each of T micro ticks all
// positions p start from the same h and c, and their mean is where all start from at the next:
//
//     r = W h + w                                 W [4N, N], w [4N]: once for all positions
//     u_p = r + F f_ap + B b_bp                   F and B [4N, M], f_ap and b_bp [M]: the messages of the two units
//     (h_p, c_p) = cell(u_p, c)                   the gates of native.cpp
//     h' = mean_p h_p                             c' = mean_p c_p
//
// and at its end, from the h_p of the last tick, for each position the means over a and over b of what is sent: of
// h_p itself, or with layer norm of the normalised messages. Let H and C be the derivatives of h' and c'. Backwards
// through one tick, each position has H / P and C / P, in the last tick also what comes from the messages sent; then
//
//     U_p, C_p as in native.cpp                   from H_p and C_p
//     R = sum_p U_p                               H <- W^T R           C <- sum_p C_p
//     dW += R h^T             dw += R             dx_ap = sum_b U_p    dy_bp = sum_a U_p
//     df_ap = F^T dx_ap       dF += dx_ap f_ap^T  db_bp = B^T dy_bp    dB += dy_bp b_bp^T
//
// with the dx and dy summed over ticks first.
//
// Where things live: lanes of a vector are positions of one synapse. Of P = Q L + t positions the last t would leave
// most of a vector empty. So the L / t synapses of neighbouring b share a vector for them, the tail. Synapses of one a
// and up to L neighbouring b are a group, with a strip of Q vectors for each and strips of one vector for the tails.
// What there is once per synapse has the synapses of the group as lanes: h, c, r, R, sums over positions. W is so
// multiplied with L synapses at a time. What a position needs of it is one lane, for all of a strip. All F f_ap of one
// a, and all B b_bp, are computed once a visit. Backwards the gates of all ticks but the last are kept; groups are
// smaller where they would not fit into the second cache. The four gates of a number lie side by side, so that few
// streams of memory are read at a time; strides of a power of two would have them evict one another.
//
// Cost per position, synapse and tick: 5N tanh and 20N additions and multiply-adds; backwards these again, and 30N.

#include "native.h"

namespace {

constexpr int64_t KEPT_BYTES = 512 << 10;  // of a group, half of a second cache

INLINE float lane_of(const Vec& x, int lane) { return reinterpret_cast<const float*>(&x)[lane]; }

INLINE void set_lane(Vec& x, int lane, float value) { reinterpret_cast<float*>(&x)[lane] = value; }

// Lane `from[i]` of x in lane i.
INLINE Vec pick(Vec x, Lanes from) {
#ifdef __AVX512F__
  return _mm512_permutexvar_ps(reinterpret_cast<__m512i>(from), x);
#else
  Vec picked;
  for (int lane = 0; lane < L; ++lane) picked[lane] = x[from[lane]];
  return picked;
#endif
}

// The sum over the lanes of each of `rows` vectors, in as many lanes of one vector. Vectors from `rows` to L are 0.
INLINE Vec sums_of(const Vec* x, int rows) {
#ifdef __AVX512F__  // halve: a vector holds the parts of two sums, of four, eight and sixteen
  const auto halve = [](__m512 a, __m512 b) {  // [a, b], in 256 bits each
    return _mm512_shuffle_f32x4(a, b, 0x44) + _mm512_shuffle_f32x4(a, b, 0xEE);
  };
  const auto quarter = [](__m512 a, __m512 b) {  // in 128 bits: the first parts of a and b, the second ones of both
    return _mm512_shuffle_f32x4(a, b, 0x88) + _mm512_shuffle_f32x4(a, b, 0xDD);
  };
  const auto within = [](__m512 a, __m512 b) {  // [a, b] in each 128 bits
    return _mm512_shuffle_ps(a, b, 0x88) + _mm512_shuffle_ps(a, b, 0xDD);
  };
  if (rows <= 8) {
    const __m512 first = quarter(halve(x[0], x[4]), halve(x[2], x[6]));   // 0 4 2 6
    const __m512 second = quarter(halve(x[1], x[5]), halve(x[3], x[7]));  // 1 5 3 7
    const __m512 both = within(first, second);                            // two parts each
    const __m512i order = _mm512_setr_epi32(0, 2, 8, 10, 4, 6, 12, 14, 0, 2, 8, 10, 4, 6, 12, 14);
    const __m512 sums = both + _mm512_permute_ps(both, 0xB1);
    return _mm512_maskz_permutexvar_ps(0xFF, order, sums);
  }
  __m512 part[4];
  for (int k = 0; k < 4; ++k)
    part[k] = quarter(halve(x[k], x[k + 4]), halve(x[k + 8], x[k + 12]));  // k, k + 4, k + 8, k + 12 in 128 bits each
  return within(within(part[0], part[1]), within(part[2], part[3]));
#else
  Vec sums{};
  for (int k = 0; k < rows; ++k) sums[k] = sum(x[k]);
  return sums;
#endif
}

// Vectors that have their positions, or for a tail their synapses and positions, in one place.
struct Strip {
  int64_t count;     // of vectors
  int64_t x;         // first vector in a row of an input unit's: 0, or Q for a tail
  int64_t at;        // vectors of all output units before it
  int row, rows;     // synapses of the group: one, or those of a tail
  int64_t valid;     // lanes that there are, in each vector
  Lanes owner;       // synapse of the group that a lane is of; for what is no lane, -1
  Lanes from;        // likewise, but 0
  Lanes first_lane;  // of each synapse of the group; -1 for those that are not here
};

// Output units b to b + rows.
struct Group {
  int64_t b;
  int rows;
  std::vector<Strip> strips;
};

// How positions are laid out in vectors.
struct Layout {
  Sizes size;
  int64_t positions, channels, whole, tail, row, vectors;  // P, channels of messages, Q, t; vectors of an a, of all b
  std::vector<Group> groups;

  Layout(const Sizes& size, int64_t positions, int64_t channels, int64_t most) : size(size) {
    this->positions = positions;
    this->channels = channels;
    whole = positions / L;
    tail = positions % L;
    row = whole + (tail > 0);
    vectors = 0;
    const int per = tail ? L / tail : L;
    for (int64_t b = 0; b < size.outputs(); b += most) {
      Group group{b, int(std::min(most, size.outputs() - b)), {}};
      if (whole)
        for (int row = 0; row < group.rows; ++row) {
          group.strips.push_back({whole, 0, vectors, row, 1, L, Lanes{}, Lanes{}, Lanes{}});
          vectors += whole;
        }
      if (tail)
        for (int row = 0; row < group.rows; row += per) {
          Strip strip{1, whole, vectors++, row, std::min(per, group.rows - row), 0, Lanes{}, Lanes{}, all_lanes(-1)};
          strip.valid = strip.rows * tail;
          for (int lane = 0; lane < L; ++lane) {
            const bool there = lane < strip.valid;
            strip.owner[lane] = there ? row + lane / tail : -1;
            strip.from[lane] = there ? row + lane / tail : 0;
          }
          for (int k = 0; k < strip.rows; ++k) strip.first_lane[row + k] = k * tail;
          group.strips.push_back(strip);
        }
      groups.push_back(std::move(group));
    }
  }

  // Where number k of strip s is, in arrays with so many numbers for each output unit.
  static int64_t place(const Strip& s, int64_t numbers, int64_t k) { return s.at * numbers + k * s.count; }

  // Read the numbers [numbers, P] of an input unit; a tail has its positions once for each synapse.
  void load_input(const float* from, int64_t numbers, float factor, Vec* to) const {
    for (int64_t k = 0; k < numbers; ++k, from += positions, to += row) {
      for (int64_t v = 0; v < whole; ++v) to[v] = factor * load(from + v * L, L);
      if (!tail) continue;
      to[whole] = Vec{};
      for (int lane = 0; lane < L / tail * tail; ++lane)
        set_lane(to[whole], lane, factor * from[whole * L + lane % tail]);
    }
  }

  void store_input(const Vec* from, int64_t numbers, float factor, float* to) const {
    for (int64_t k = 0; k < numbers; ++k, to += positions, from += row) {
      for (int64_t v = 0; v < whole; ++v) store(to + v * L, factor * from[v], L);
      for (int64_t p = 0; p < tail; ++p) to[whole * L + p] = 0;
      for (int lane = 0; tail && lane < L / tail * tail; ++lane)
        to[whole * L + lane % tail] += factor * lane_of(from[whole], lane);
    }
  }

  // Read the numbers [O, numbers, P] of all output units.
  void load_outputs(const float* from, int64_t numbers, float factor, Vec* to) const {
    for (const Group& group : groups)
      for (const Strip& s : group.strips)
        for (int64_t k = 0; k < numbers; ++k) {
          Vec* here = to + place(s, numbers, k);
          const float* row = from + ((group.b + s.row) * numbers + k) * positions;
          if (s.x < whole) {
            for (int64_t v = 0; v < whole; ++v) here[v] = factor * load(row + v * L, L);
            continue;
          }
          *here = Vec{};
          for (int lane = 0; lane < s.valid; ++lane)
            set_lane(*here, lane, factor * row[lane / tail * numbers * positions + whole * L + lane % tail]);
        }
  }

  void store_outputs(const Vec* from, int64_t numbers, float factor, float* to) const {
    for (const Group& group : groups)
      for (const Strip& s : group.strips)
        for (int64_t k = 0; k < numbers; ++k) {
          const Vec* here = from + place(s, numbers, k);
          float* row = to + ((group.b + s.row) * numbers + k) * positions;
          if (s.x < whole)
            for (int64_t v = 0; v < whole; ++v) store(row + v * L, factor * here[v], L);
          else
            for (int lane = 0; lane < s.valid; ++lane)
              row[lane / tail * numbers * positions + whole * L + lane % tail] = factor * lane_of(*here, lane);
        }
  }

  // Read the N numbers of the synapses of a group; states are [G, N, R, I].
  void load_synapses(const Group& group, const float* from, int64_t a, Vec* to) const {
    for (int n = 0; n < N; ++n) to[n] = Vec{};
    for (int row = 0; row < group.rows; ++row) {
      const float* synapse = from + size.synapses(group.b + row) + a;
      for (int n = 0; n < N; ++n) set_lane(to[n], row, synapse[n * size.stride()]);
    }
  }

  void store_synapses(const Group& group, const Vec* from, int64_t a, float* to) const {
    for (int row = 0; row < group.rows; ++row) {
      float* synapse = to + size.synapses(group.b + row) + a;
      for (int n = 0; n < N; ++n) synapse[n * size.stride()] = lane_of(from[n], row);
    }
  }
};

// What enters the four gates i, g, f, o of one number of a state: side by side, as they are needed together.
struct Four {
  Vec gate[4];
};

// F f: from messages [M, count] what they add to the gates, [N, count].
void add_messages(const float* F, int64_t channels, const Vec* messages, int64_t count, Four* gates) {
  for (int n = 0; n < N; ++n)
    for (int64_t v = 0; v < count; ++v) {
      Four total{};
      for (int64_t m = 0; m < channels; ++m)
#pragma GCC unroll 4
        for (int j = 0; j < 4; ++j) total.gate[j] += F[(j * N + n) * channels + m] * messages[m * count + v];
      gates[n * count + v] = total;
    }
}

// df = F^T dx
void return_messages(const float* F, int64_t channels, const Four* d_gates, int64_t count, Vec* d_messages) {
  int64_t m = 0;
  for (; m + 4 <= channels; m += 4)
    for (int64_t v = 0; v < count; ++v) {
      Vec total[4] = {};
      for (int n = 0; n < N; ++n)
#pragma GCC unroll 4
        for (int j = 0; j < 4; ++j)
#pragma GCC unroll 4
          for (int i = 0; i < 4; ++i)
            total[i] += F[(j * N + n) * channels + m + i] * d_gates[n * count + v].gate[j];
      for (int i = 0; i < 4; ++i) d_messages[(m + i) * count + v] = total[i];
    }
  for (; m < channels; ++m)
    for (int64_t v = 0; v < count; ++v) {
      Vec total{};
      for (int n = 0; n < N; ++n)
        for (int j = 0; j < 4; ++j) total += F[(j * N + n) * channels + m] * d_gates[n * count + v].gate[j];
      d_messages[m * count + v] = total;
    }
}

// dF += dx f^T, lane by lane; dF is [N, M].
void outer_product(const Four* d_gates, const Vec* messages, int64_t channels, int64_t count, Four* dF) {
  for (int n = 0; n < N; ++n)
    for (int64_t m = 0; m < channels; ++m) {
      Four total = dF[n * channels + m];
      for (int64_t v = 0; v < count; ++v)
#pragma GCC unroll 4
        for (int j = 0; j < 4; ++j) total.gate[j] += d_gates[n * count + v].gate[j] * messages[m * count + v];
      dF[n * channels + m] = total;
    }
}

// What all output units add to the gates, B b_bp in strips.
void add_outputs(const Layout& at, const float* B, const Vec* messages, Four* y) {
  for (const Group& group : at.groups)
    for (const Strip& s : group.strips)
      add_messages(B, at.channels, messages + s.at * at.channels, s.count, y + s.at * N);
}

// r = W h + w
INLINE void recurrent(const Packed* packed, const float* bias, const Vec* h, Four* r) {
  Factor room[TERMS > 1 ? H_FACTORS : 1][1];
  const Factor(*factor)[1] = paired<1>(reinterpret_cast<const Vec(*)[1]>(h), N, room);
  for (int n = 0; n < N; ++n) {
    Four u;
#pragma GCC unroll 4
    for (int j = 0; j < 4; ++j) u.gate[j] = all(bias[j * N + n]);
    for (int m = 0; m < H_FACTORS; ++m)
#pragma GCC unroll 4
      for (int j = 0; j < 4; ++j) u.gate[j] = multiply_add(u.gate[j], spread(packed[n][m][j]), factor[m][0]);
    r[n] = u;
  }
}

INLINE Vec everywhere(const Strip& s, bool tail, const Vec& synapses) {
  return tail ? pick(synapses, s.from) : all(lane_of(synapses, s.row));
}

INLINE Four everywhere(const Strip& s, bool tail, const Four& synapses) {
  Four spread;
#pragma GCC unroll 4
  for (int j = 0; j < 4; ++j) spread.gate[j] = everywhere(s, tail, synapses.gate[j]);
  return spread;
}

INLINE Vec valid(const Strip& s, Vec x) { return s.owner >= 0 ? x : Vec{}; }

// Sums over positions for each synapse of a group.
struct SynapseSums {
  Vec rows[L];  // of each synapse, over vectors
  Vec total;    // of tails, a synapse in each lane

  INLINE void start(const Layout& layout) {
    total = Vec{};
    if (!layout.whole) std::fill_n(rows, L, Vec{});  // else the strip of each synapse comes first
  }

  // Add what the vectors of a strip have in sum.
  INLINE void add(const Layout& layout, const Strip& s, bool tail, Vec x) {
    if (!tail) {
      rows[s.row] = x;
    } else if (layout.tail <= s.rows) {  // a permutation for each position, or a selection for each synapse
      for (int p = 0; p < layout.tail; ++p) total += s.first_lane >= 0 ? pick(x, s.first_lane + p) : Vec{};
    } else {
      for (int row = s.row; row < s.row + s.rows; ++row) rows[row] += s.owner == all_lanes(row) ? x : Vec{};
    }
  }

  INLINE Vec get(const Group& group) const { return sums_of(rows, group.rows) + total; }
};

// What ticks of a group need, and leave.
struct Ticking {
  const Layout& layout;
  const Group& group;
  const Four *x, *y;  // what messages add to the gates, [N, Q + 1] and strips of [N]
  Vec *out, *back;   // sums of h_p over a and over b, strips of [N] and [N, Q + 1]
  Vec* sent;         // with layer norm the h_p of the last tick, [vectors of the group, N]
  Gates* kept;       // [N, vectors of the group]
  int64_t vectors() const { return group.strips.back().at + group.strips.back().count - first(); }
  int64_t first() const { return group.strips.front().at; }
};

INLINE Cell ticked(const Four& x, const Four& y, const Four& r, Vec c) {
  Vec u[4];
#pragma GCC unroll 4
  for (int j = 0; j < 4; ++j) u[j] = x.gate[j] + y.gate[j] + r.gate[j];
  return cell_of(u[0], u[1], u[2], u[3], c);
}

enum Mode { TICK, KEEP, SEND, KEEP_AND_SEND };

template <bool TAIL, Mode MODE>
INLINE void tick_strip(const Ticking& at, const Strip& s, int n, const Four* r, const Vec* c, SynapseSums& h_sums,
                       SynapseSums& c_sums) {
  const Four *x = at.x + n * at.layout.row + s.x, *y = at.y + Layout::place(s, N, n);
  const Four r_here = everywhere(s, TAIL, r[n]);
  Vec h_sum{}, c_sum{};
  const Vec c_here = everywhere(s, TAIL, c[n]);
  const int64_t count = TAIL ? 1 : s.count, place = s.at - at.first();
  Gates* kept = at.kept + n * at.vectors() + place;
  Vec *out = at.out + Layout::place(s, N, n), *back = at.back + n * at.layout.row + s.x;
  for (int64_t v = 0; v < count; ++v) {
    Cell now = ticked(x[v], y[v], r_here, c_here);
    if (TAIL) now.h = valid(s, now.h);
    h_sum += now.h;
    c_sum += now.c;
    if (MODE == KEEP || MODE == KEEP_AND_SEND) kept[v] = now.gates;
    if (MODE == SEND || MODE == KEEP_AND_SEND) {
      if (NORM)
        at.sent[(place + v) * N + n] = now.h;
      else
        out[v] += now.h, back[v] += now.h;
    }
  }
  h_sums.add(at.layout, s, TAIL, h_sum);
  c_sums.add(at.layout, s, TAIL, c_sum);
}

// Tick once, from h and c to h_new and c_new, which may be the same.
template <Mode MODE>
__attribute__((noinline)) void tick_group(const Ticking& at, const Packed* packed, const float* bias,
                                          const Vec* h, const Vec* c, Vec* h_new, Vec* c_new) {
  Four r[N];
  SynapseSums h_sums{}, c_sums{};
  recurrent(packed, bias, h, r);
  const float positions = at.layout.positions;
  for (int n = 0; n < N; ++n) {
    h_sums.start(at.layout), c_sums.start(at.layout);
    for (const Strip& s : at.group.strips)
      if (s.x < at.layout.whole)
        tick_strip<false, MODE>(at, s, n, r, c, h_sums, c_sums);
      else
        tick_strip<true, MODE>(at, s, n, r, c, h_sums, c_sums);
    h_new[n] = h_sums.get(at.group) / positions;
    c_new[n] = c_sums.get(at.group) / positions;
  }
}

// Add the normalised messages of all positions of a group to the sums over a and over b.
void send_normed(const Ticking& at, const float* senders) {
  Vec messages[2][CHANNELS][1], r[1];
  for (const Strip& s : at.group.strips)
    for (int64_t v = 0; v < s.count; ++v) {
      const Vec* h = at.sent + (s.at - at.first() + v) * N;
      for (int way = 0; way < 2; ++way)
        normed_messages<1>(senders + way * SENDER, reinterpret_cast<const Vec(*)[1]>(h), messages[way], r);
      for (int m = 0; m < CHANNELS; ++m) {
        at.out[Layout::place(s, SENT, m) + v] += messages[0][m][0];
        at.back[m * at.layout.row + s.x + v] += valid(s, messages[1][m][0]);
      }
    }
}

struct Forward {
  const Layout& layout;
  int64_t ticks;
  const float *W, *F, *B, *bias, *f, *b, *h, *c, *senders;
  float *h_new, *c_new, *forward, *backward;  // the means of what is sent, [O, SENT, P] and [I, SENT, P]
};

void forward(const Forward& at) {
  const Layout& layout = at.layout;
  const int64_t channels = layout.channels, P = layout.positions, row = layout.row;
  Packed packed[N];
  pack(at.W, packed);
  scratch.start();
  const auto messages = scratch.take<Vec>(channels * std::max(row, layout.vectors));
  const auto x = scratch.take<Four>(N * row), y = scratch.take<Four>(N * layout.vectors);
  const auto out = scratch.zeros<Vec>(SENT * layout.vectors), back = scratch.take<Vec>(SENT * row);
  const auto sent = scratch.take<Vec>(NORM ? N * layout.vectors : 0);
  layout.load_outputs(at.b, channels, 1, messages);
  add_outputs(layout, at.B, messages, y);
  for (int64_t a = 0; a < layout.size.inputs; ++a) {
    layout.load_input(at.f + a * channels * P, channels, 1, messages);
    add_messages(at.F, channels, messages, row, x);
    std::fill_n(back, SENT * row, Vec{});
    for (const Group& group : layout.groups) {
      const Ticking ticking{layout, group, x, y, out, back, sent, nullptr};
      Vec h[N], c[N];
      layout.load_synapses(group, at.h, a, h);
      layout.load_synapses(group, at.c, a, c);
      for (int64_t t = 0; t < at.ticks; ++t)
        if (t + 1 < at.ticks)
          tick_group<TICK>(ticking, packed, at.bias, h, c, h, c);
        else
          tick_group<SEND>(ticking, packed, at.bias, h, c, h, c);
      if (NORM) send_normed(ticking, at.senders);
      layout.store_synapses(group, h, a, at.h_new);
      layout.store_synapses(group, c, a, at.c_new);
    }
    layout.store_input(back, SENT, 1.0f / layout.size.outputs(), at.backward + a * SENT * P);
  }
  layout.store_outputs(out, SENT, 1.0f / layout.size.inputs, at.forward);
}

struct Backward {
  const Layout& layout;
  int64_t ticks;
  const float *W, *F, *B, *bias, *f, *b, *h, *c, *senders, *dh_new, *dc_new, *dforward, *dbackward;
  float *dW, *dF, *dB, *dbias, *df, *db, *dh, *dc, *dsenders;
};

// Sums over lanes are left for the end.
struct Sums {
  Vec W[GATES][N], bias[GATES], senders[2][N + 1][CHANNELS];
};

// What the way back through a tick of a group needs beside what it was ticked with, and what it leaves.
struct Returning {
  const Ticking& ticking;
  const Vec *dout, *dback;  // divided by the numbers that the means are over; with layer norm `ticking.sent` has H_p
  Four *dx, *dy;
  Four* du;  // sums over ticks of U_p, [N, vectors of the group]
};

// FUSED: the gates are computed here, not kept. LAST and FIRST of the ticks.
template <bool TAIL, bool FUSED, bool LAST, bool FIRST>
INLINE void return_strip(const Returning& at, const Strip& s, int n, const Four* r, const Vec* c, const Vec* H,
                         const Vec* C, SynapseSums* r_sums, SynapseSums& C_sums) {
  const Ticking& ticking = at.ticking;
  const int64_t place = s.at - ticking.first(), vectors = ticking.vectors();
  const int64_t x_place = n * ticking.layout.row + s.x, y_place = Layout::place(s, N, n);
  const Four *x = ticking.x + x_place, *y = ticking.y + y_place;
  Four *dx = at.dx + x_place, *dy = at.dy + y_place, *du = at.du + n * vectors + place, r_here;
  Vec dr[4] = {}, C_sum{};
  if (FUSED) r_here = everywhere(s, TAIL, r[n]);
  const Vec c_here = everywhere(s, TAIL, c[n]), H_here = everywhere(s, TAIL, H[n]), C_here = everywhere(s, TAIL, C[n]);
  const int64_t count = TAIL ? 1 : s.count;
  const Gates* kept = ticking.kept + n * vectors + place;
  const Vec *dout = at.dout + Layout::place(s, N, n), *dback = at.dback + n * ticking.layout.row + s.x;
  for (int64_t v = 0; v < count; ++v) {
    const Gates now = FUSED ? ticked(x[v], y[v], r_here, c_here).gates : kept[v];
    Vec h_slope = H_here;
    if (LAST) h_slope += NORM ? ticking.sent[(place + v) * N + n] : dout[v] + dback[v];
    const Slopes slopes = slopes_of(now, c_here, h_slope, C_here);
    Vec u[4] = {slopes.i, slopes.g, slopes.f, slopes.o};
    C_sum += slopes.c;
#pragma GCC unroll 4
    for (int j = 0; j < 4; ++j) {
      if (TAIL) u[j] = valid(s, u[j]);
      dr[j] += u[j];
      if (!LAST) u[j] += du[v].gate[j];
      if (FIRST)
        dx[v].gate[j] += u[j], dy[v].gate[j] += u[j];
      else
        du[v].gate[j] = u[j];
    }
  }
  for (int j = 0; j < 4; ++j) r_sums[j].add(ticking.layout, s, TAIL, dr[j]);
  C_sums.add(ticking.layout, s, TAIL, C_sum);
}

// Go back through one tick: H and C come in as those of its results and go out as those of what it began with.
template <bool FUSED, bool LAST, bool FIRST>
__attribute__((noinline)) void return_group(const Returning& at, const Packed* packed,
                                            const Weight (*W)[N], const float* bias, const Vec* h, const Vec* c, Vec* H, Vec* C, Sums& sums) {
  const Ticking& ticking = at.ticking;
  Four r[N];
  Vec dr[GATES];
  SynapseSums r_sums[4]{}, C_sums{};
  const float positions = ticking.layout.positions;
  if (FUSED) recurrent(packed, bias, h, r);
  for (int n = 0; n < N; ++n) H[n] /= positions, C[n] /= positions;
  for (int n = 0; n < N; ++n) {
    for (int j = 0; j < 4; ++j) r_sums[j].start(ticking.layout);
    C_sums.start(ticking.layout);
    for (const Strip& s : ticking.group.strips)
      if (s.x < ticking.layout.whole)
        return_strip<false, FUSED, LAST, FIRST>(at, s, n, r, c, H, C, r_sums, C_sums);
      else
        return_strip<true, FUSED, LAST, FIRST>(at, s, n, r, c, H, C, r_sums, C_sums);
    for (int j = 0; j < 4; ++j) dr[j * N + n] = r_sums[j].get(ticking.group);
    C[n] = C_sums.get(ticking.group);
  }
  transposed_product<1>(W, reinterpret_cast<const Vec(*)[1]>(dr), reinterpret_cast<Vec(*)[1]>(H));
  for (int k = 0; k < GATES; ++k) {
    sums.bias[k] += dr[k];
    for (int n = 0; n < N; ++n) sums.W[k][n] = multiply_add(sums.W[k][n], join(dr[k], Vec{}), join(h[n], Vec{}));
  }
}

// From the derivatives of the normalised messages of a group to those of the h_p, which take their place.
void return_normed(const Returning& at, const float* senders, Sums& sums) {
  const Ticking& ticking = at.ticking;
  for (const Strip& s : ticking.group.strips)
    for (int64_t v = 0; v < s.count; ++v) {
      Vec* h = ticking.sent + (s.at - ticking.first() + v) * N;
      Vec D[2][CHANNELS][1], H[N][1] = {};
      for (int m = 0; m < CHANNELS; ++m) {
        D[0][m][0] = at.dout[Layout::place(s, SENT, m) + v];
        D[1][m][0] = at.dback[m * ticking.layout.row + s.x + v];
      }
      for (int way = 0; way < 2; ++way)
        normed_gradient<1>(senders + way * SENDER, reinterpret_cast<const Vec(*)[1]>(h), D[way], s.valid, H,
                           sums.senders[way]);
      std::memcpy(h, H, sizeof(H));
    }
}

void backward(const Backward& at) {
  const Layout& layout = at.layout;
  const int64_t channels = layout.channels, P = layout.positions, row = layout.row;
  Packed packed[N];
  Weight transposed[GATE_FACTORS][N];
  pack(at.W, packed);
  pack_transposed(at.W, transposed);
  scratch.start();
  int64_t most = 0;
  for (const Group& group : layout.groups)
    most = std::max(most, group.strips.back().at + group.strips.back().count - group.strips.front().at);
  const int64_t kept_ticks = NORM ? at.ticks : at.ticks - 1;
  const auto f = scratch.take<Vec>(channels * row), df = scratch.take<Vec>(channels * row);
  const auto b = scratch.take<Vec>(channels * layout.vectors), db = scratch.take<Vec>(channels * layout.vectors);
  const auto dback = scratch.take<Vec>(SENT * row), dout = scratch.take<Vec>(SENT * layout.vectors);
  const auto x = scratch.take<Four>(N * row), dx = scratch.take<Four>(N * row);
  const auto y = scratch.take<Four>(N * layout.vectors), dy = scratch.zeros<Four>(N * layout.vectors);
  const auto kept = scratch.take<Gates>(kept_ticks * most * N);
  const auto sent = scratch.take<Vec>(NORM ? N * most : 0);
  const auto du = scratch.take<Four>(at.ticks > 1 ? N * most : 0);
  const auto h = scratch.take<Vec>((at.ticks + 1) * N), c = scratch.take<Vec>((at.ticks + 1) * N);
  const auto dF = scratch.zeros<Four>(N * channels), dB = scratch.zeros<Four>(N * channels);
  Sums& sums = *scratch.zeros<Sums>(1);
  layout.load_outputs(at.b, channels, 1, b);
  layout.load_outputs(at.dforward, SENT, 1.0f / layout.size.inputs, dout);
  add_outputs(layout, at.B, b, y);
  for (int64_t a = 0; a < layout.size.inputs; ++a) {
    layout.load_input(at.f + a * channels * P, channels, 1, f);
    layout.load_input(at.dbackward + a * SENT * P, SENT, 1.0f / layout.size.outputs(), dback);
    add_messages(at.F, channels, f, row, x);
    std::fill_n(dx, N * row, Four{});
    for (const Group& group : layout.groups) {
      layout.load_synapses(group, at.h, a, h);
      layout.load_synapses(group, at.c, a, c);
      Ticking ticking{layout, group, x, y, nullptr, nullptr, sent, kept};
      const Returning returning{ticking, dout, dback, dx, dy, du};
      const int64_t kept_size = ticking.vectors() * N;
      for (int64_t t = 0; t < kept_ticks; ++t) {
        const Vec *h_now = h + t * N, *c_now = c + t * N;
        Vec *h_next = h + (t + 1) * N, *c_next = c + (t + 1) * N;
        ticking.kept = kept + t * kept_size;
        if (t + 1 < at.ticks)
          tick_group<KEEP>(ticking, packed, at.bias, h_now, c_now, h_next, c_next);
        else
          tick_group<KEEP_AND_SEND>(ticking, packed, at.bias, h_now, c_now, h_next, c_next);
      }
      if (NORM) return_normed(returning, at.senders, sums);
      Vec H[N], C[N];
      layout.load_synapses(group, at.dh_new, a, H);
      layout.load_synapses(group, at.dc_new, a, C);
      for (int64_t t = at.ticks - 1; t >= 0; --t) {
        const Vec *h_now = h + t * N, *c_now = c + t * N;
        ticking.kept = kept + t * kept_size;
        const bool last = t + 1 == at.ticks, first = t == 0;
        const auto go_back = last && first ? return_group<!NORM, true, true>
                             : last        ? return_group<!NORM, true, false>
                             : first       ? return_group<false, false, true>
                                           : return_group<false, false, false>;
        go_back(returning, packed, transposed, at.bias, h_now, c_now, H, C, sums);
      }
      layout.store_synapses(group, H, a, at.dh);
      layout.store_synapses(group, C, a, at.dc);
    }
    return_messages(at.F, channels, dx, row, df);
    outer_product(dx, f, channels, row, dF);
    layout.store_input(df, channels, 1, at.df + a * channels * P);
  }
  for (const Group& group : layout.groups)
    for (const Strip& s : group.strips) {
      const Four* dy_here = dy + s.at * N;
      return_messages(at.B, channels, dy_here, s.count, db + s.at * channels);
      outer_product(dy_here, b + s.at * channels, channels, s.count, dB);
    }
  layout.store_outputs(db, channels, 1, at.db);
  for (int k = 0; k < GATES; ++k) {
    at.dbias[k] = sum(sums.bias[k]);
    for (int n = 0; n < N; ++n) at.dW[k * N + n] = sum(sums.W[k][n]);
    for (int64_t m = 0; m < channels; ++m) {
      at.dF[k * channels + m] = sum(dF[k % N * channels + m].gate[k / N]);
      at.dB[k * channels + m] = sum(dB[k % N * channels + m].gate[k / N]);
    }
  }
  for (int way = 0; way < 2; ++way)
    for (int k = 0; k <= N; ++k)
      for (int m = 0; m < CHANNELS; ++m)
        at.dsenders[way * SENDER + k * CHANNELS + m] = sum(sums.senders[way][k][m]);
}

// f is [..., I, M, P], with members first as in h.
struct Shape {
  Sizes size;
  int64_t channels, positions;
  explicit Shape(const Floats& h, const Floats& f) : size(sizes_of(h)) {
    auto dims = f.dimensions();
    channels = dims[dims.size() - 2], positions = dims[dims.size() - 1];
  }
  int64_t state() const { return N * size.inputs * size.outputs(); }
  int64_t inputs(int64_t numbers) const { return size.inputs * numbers * positions; }
  int64_t outputs(int64_t numbers) const { return size.outputs() * numbers * positions; }
};

ffi::Error forward_all(int64_t ticks, Floats W, Floats F, Floats B, Floats bias, Floats f, Floats b, Floats h, Floats c,
                       Floats senders, Result h_new, Result c_new, Result forward_mean, Result backward_mean) {
  const Shape shape(h, f);
  const int64_t M_F = GATES * shape.channels;
  const Layout layout(shape.size, shape.positions, shape.channels, L);
  for (int64_t p = 0; p < shape.size.members; ++p)
    forward({layout, ticks, W.typed_data() + p * GATES * N, F.typed_data() + p * M_F, B.typed_data() + p * M_F,
             bias.typed_data() + p * GATES, f.typed_data() + p * shape.inputs(shape.channels),
             b.typed_data() + p * shape.outputs(shape.channels), h.typed_data() + p * shape.state(),
             c.typed_data() + p * shape.state(), senders.typed_data() + p * 2 * SENDER,
             h_new->typed_data() + p * shape.state(), c_new->typed_data() + p * shape.state(),
             forward_mean->typed_data() + p * shape.outputs(SENT),
             backward_mean->typed_data() + p * shape.inputs(SENT)});
  return ffi::Error::Success();
}

ffi::Error backward_all(int64_t ticks, Floats W, Floats F, Floats B, Floats bias, Floats f, Floats b, Floats h, Floats c,
                        Floats senders, Floats dh_new, Floats dc_new, Floats dforward, Floats dbackward, Result dW,
                        Result dF, Result dB, Result dbias, Result df, Result db, Result dh, Result dc, Result dsenders) {
  const Shape shape(h, f);
  const int64_t M_F = GATES * shape.channels, state = shape.state();
  const int64_t kept_bytes = (ticks * N * sizeof(Gates) / L + GATES * sizeof(float)) * shape.positions;  // of a synapse
  const int64_t most = std::max<int64_t>(1, std::min<int64_t>(L, KEPT_BYTES / kept_bytes));
  const Layout layout(shape.size, shape.positions, shape.channels, most);
  for (int64_t p = 0; p < shape.size.members; ++p)
    backward({layout, ticks, W.typed_data() + p * GATES * N, F.typed_data() + p * M_F, B.typed_data() + p * M_F,
              bias.typed_data() + p * GATES, f.typed_data() + p * shape.inputs(shape.channels),
              b.typed_data() + p * shape.outputs(shape.channels), h.typed_data() + p * state, c.typed_data() + p * state,
              senders.typed_data() + p * 2 * SENDER, dh_new.typed_data() + p * state, dc_new.typed_data() + p * state,
              dforward.typed_data() + p * shape.outputs(SENT), dbackward.typed_data() + p * shape.inputs(SENT),
              dW->typed_data() + p * GATES * N, dF->typed_data() + p * M_F, dB->typed_data() + p * M_F,
              dbias->typed_data() + p * GATES, df->typed_data() + p * shape.inputs(shape.channels),
              db->typed_data() + p * shape.outputs(shape.channels), dh->typed_data() + p * state,
              dc->typed_data() + p * state, dsenders->typed_data() + p * 2 * SENDER});
  return ffi::Error::Success();
}

}  // namespace

#define INPUTS FLOATS FLOATS FLOATS FLOATS FLOATS FLOATS FLOATS FLOATS FLOATS

XLA_FFI_DEFINE_HANDLER_SYMBOL(vsml_forward, forward_all,
                              ffi::Ffi::Bind().Attr<int64_t>("micro_ticks") INPUTS RESULT RESULT RESULT RESULT);
XLA_FFI_DEFINE_HANDLER_SYMBOL(vsml_backward, backward_all,
                              ffi::Ffi::Bind().Attr<int64_t>("micro_ticks") INPUTS FLOATS FLOATS FLOATS FLOATS
                                  RESULT RESULT RESULT RESULT RESULT RESULT RESULT RESULT RESULT);
