// What the kernels of dense layers and of convolutions share: vectors, tanh, one tick of an LSTM, layer norm.
//
// The compiler is given STATE_SIZE (N), MESSAGE_SIZE (M with layer norm, else 0), NORM_EPSILON, ROUNDED_PRODUCTS (1 where
// products take bfloat16, else 0), and the bound and the coefficients of tanh.

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <memory>
#include <new>
#include <vector>

#include "xla/ffi/api/ffi.h"

#ifdef __AVX512F__
#include <immintrin.h>
#endif

#define FLOATS .Arg<Floats>()
#define RESULT .Ret<Floats>()

namespace {

namespace ffi = xla::ffi;
using Floats = ffi::Buffer<ffi::F32>;
using Result = ffi::ResultBuffer<ffi::F32>;

constexpr int N = STATE_SIZE;
constexpr int GATES = 4 * N;
constexpr int M = MESSAGE_SIZE;  // 0 without layer norm
constexpr bool NORM = M > 0;
constexpr int SENT = NORM ? M : N;  // numbers that a synapse sends in each direction
constexpr int CHANNELS = NORM ? M : 1;
constexpr int SENDER = (N + 1) * CHANNELS;  // K and k of one direction: [N + 1, M]; without layer norm nothing to read
#if defined(__AVX512F__)
constexpr int L = 16, MOST = 4;  // floats in a vector; vectors in a block, as many as registers hold sums of
#elif defined(__AVX__)
constexpr int L = 8, MOST = 2;
#else
constexpr int L = 4, MOST = 4;
#endif
constexpr int ROWS = N % 4 == 0 ? 4 : 1;  // of W^T that are multiplied at a time
constexpr bool ROUNDED = ROUNDED_PRODUCTS;

typedef float Vec __attribute__((vector_size(4 * L)));
typedef float Unaligned __attribute__((vector_size(4 * L), aligned(4)));

#define INLINE inline __attribute__((always_inline))

INLINE Vec all(float x) { return x - Vec{}; }

// Keep x in a register. Compilers else read it anew at each use, where reading takes longer than multiplying.
INLINE void hold(Vec& x) {
#ifdef __x86_64__
  asm("" : "+v"(x));
#endif
}

typedef int32_t Lanes __attribute__((vector_size(4 * L)));

INLINE Lanes all_lanes(int32_t x) { return x - Lanes{}; }

// The first `count` lanes; beyond them are no synapses.
INLINE Vec keep(Vec x, int64_t count) {
  Lanes number;
  for (int lane = 0; lane < L; ++lane) number[lane] = lane;
  return number < all_lanes(int32_t(count)) ? x : Vec{};
}

INLINE Vec load(const float* from, int64_t count) {
  if (count >= L) return *reinterpret_cast<const Unaligned*>(from);
#ifdef __AVX512F__
  return _mm512_maskz_loadu_ps((1 << count) - 1, from);
#else
  Vec x{};
  std::memcpy(&x, from, count * sizeof(float));
  return x;
#endif
}

INLINE void store(float* to, Vec x, int64_t count) {
  if (count >= L)
    *reinterpret_cast<Unaligned*>(to) = x;
  else
#ifdef __AVX512F__
    _mm512_mask_storeu_ps(to, (1 << count) - 1, x);
#else
    std::memcpy(to, &x, count * sizeof(float));
#endif
}

INLINE float sum(Vec x) {
  float lanes[L];
  std::memcpy(lanes, &x, sizeof(lanes));
  for (int half = L / 2; half > 0; half /= 2)
    for (int lane = 0; lane < half; ++lane) lanes[lane] += lanes[lane + half];
  return lanes[0];
}

// The sums over the lanes of `rows` vectors, each added up as `sum` does it.
INLINE void sums_of_rows(const Vec* x, int rows, float* sums) {
  int row = 0;
#ifdef __AVX512F__  // halve: a vector holds the parts of two sums, of four, eight and sixteen
  const auto halve = [](__m512 a, __m512 b) {
    return _mm512_shuffle_f32x4(a, b, 0x44) + _mm512_shuffle_f32x4(a, b, 0xEE);
  };
  const auto quarter = [](__m512 a, __m512 b) {
    return _mm512_shuffle_f32x4(a, b, 0x88) + _mm512_shuffle_f32x4(a, b, 0xDD);
  };
  for (; row + L <= rows; row += L) {
    __m512 part[4];
    for (int k = 0; k < 4; ++k) {
      const Vec* here = x + row + k;
      part[k] = quarter(halve(here[0], here[4]), halve(here[8], here[12]));  // in 128 bits each
    }
    __m512 pair[2];
    for (int k = 0; k < 2; ++k)
      pair[k] = _mm512_shuffle_ps(part[2 * k], part[2 * k + 1], 0x44) +
                _mm512_shuffle_ps(part[2 * k], part[2 * k + 1], 0xEE);
    const __m512 all = _mm512_shuffle_ps(pair[0], pair[1], 0x88) + _mm512_shuffle_ps(pair[0], pair[1], 0xDD);
    _mm512_storeu_ps(sums + row, all);
  }
#endif
  for (; row < rows; ++row) sums[row] = sum(x[row]);
}

INLINE Vec reciprocal(Vec x) {
#ifdef __AVX512F__  // a division takes a vector unit for 16 cycles; this is as exact but for the last bit
  Vec guess = _mm512_rcp14_ps(x);
  if (ROUNDED) return guess;  // 14 bits, where products have 8
  return guess * (2.0f - x * guess);
#else
  return 1.0f / x;
#endif
}

INLINE Vec square_root(Vec x) {
#ifdef __AVX512F__
  return _mm512_sqrt_ps(x);
#else
  for (int lane = 0; lane < L; ++lane) x[lane] = __builtin_sqrtf(x[lane]);
  return x;
#endif
}

// x between -bound and bound; what is not a number stays so.
INLINE Vec clamp(Vec x, float bound) {
#ifdef __AVX512F__  // of two operands that cannot be compared these return the second
  return _mm512_min_ps(all(bound), _mm512_max_ps(all(-bound), x));
#else
  x = x < -bound ? all(-bound) : x;
  return x > bound ? all(bound) : x;
#endif
}

// The rational function of activations.py, whose coefficients are handed to the compiler.
INLINE Vec tanh(Vec x) {
  constexpr float p[] = {TANH_P}, q[] = {TANH_Q};
  constexpr int terms = sizeof(p) / sizeof(p[0]);
  x = clamp(x, TANH_BOUND);
  Vec square = x * x, above = all(p[terms - 1]), below = all(q[terms - 1]);
  for (int term = terms - 2; term >= 0; --term) {
    above = above * square + p[term];
    below = below * square + q[term];
  }
  return x * above * reciprocal(below);
}

// What is multiplied in products: numbers as they are, or two numbers a lane that are rounded to bfloat16. A sum of
// products then takes two terms at a time, which one instruction does where the processor has it.
#if !ROUNDED_PRODUCTS
constexpr int TERMS = 1;  // in a factor
typedef float Weight;
typedef Vec Factor;

INLINE Weight weight_of(float first, float) { return first; }
INLINE Factor spread(Weight weight) { return all(weight); }
INLINE Factor pair(Vec first, Vec) { return first; }
INLINE Factor join(Vec first, Vec) { return first; }
INLINE Vec multiply_add(Vec total, Factor a, Factor b) { return total + a * b; }
#else
constexpr int TERMS = 2;

// To the nearest, to even where two are as near; what is not a number stays so.
INLINE uint32_t bfloat16(float x) {
  uint32_t bits;
  std::memcpy(&bits, &x, sizeof(bits));
  return x != x ? 0x7FC0 : (bits + 0x7FFF + (bits >> 16 & 1)) >> 16;
}
#ifdef __AVX512BF16__
struct Weight {
  uint32_t bits;
};
struct Factor {
  __m512i bits;
};

INLINE Weight weight_of(float first, float second) { return {bfloat16(first) | bfloat16(second) << 16}; }

// Two numbers somewhere, each with its like in another factor that is joined: for sums over lanes.
INLINE Factor join(Vec first, Vec second) { return {(__m512i)_mm512_cvtne2ps_pbh(second, first)}; }

// Two numbers of each lane.
INLINE Factor pair(Vec first, Vec second) {
  alignas(64) static constexpr uint16_t order[] = {0, 16, 1, 17, 2,  18, 3,  19, 4,  20, 5,  21, 6,  22, 7,  23,
                                                   8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31};
  return {_mm512_permutexvar_epi16(_mm512_load_si512(order), join(first, second).bits)};
}

INLINE Vec multiply_add(Vec total, Factor a, Factor b) {
  return _mm512_dpbf16_ps(total, (__m512bh)a.bits, (__m512bh)b.bits);
}

INLINE Factor spread(Weight weight) { return {_mm512_set1_epi32(weight.bits)}; }
INLINE void hold(Factor& x) { asm("" : "+v"(x.bits)); }
#else
struct Weight {
  float first, second;
};
struct Factor {
  Vec first, second;
};

INLINE float rounded(float x) {
  const uint32_t bits = bfloat16(x) << 16;
  std::memcpy(&x, &bits, sizeof(bits));
  return x;
}

INLINE Vec rounded(Vec x) {
  typedef uint32_t Bits __attribute__((vector_size(4 * L)));
  const Bits bits = reinterpret_cast<Bits>(x);
  const Bits nearest = (bits + 0x7FFF + (bits >> 16 & 1)) & 0xFFFF0000;
  return x == x ? reinterpret_cast<Vec>(nearest) : x;
}

INLINE Weight weight_of(float first, float second) { return {rounded(first), rounded(second)}; }
INLINE Factor pair(Vec first, Vec second) { return {rounded(first), rounded(second)}; }
INLINE Factor join(Vec first, Vec second) { return pair(first, second); }
INLINE Factor spread(Weight weight) { return {all(weight.first), all(weight.second)}; }
INLINE void hold(Factor& x) { hold(x.first), hold(x.second); }
INLINE Vec multiply_add(Vec total, Factor a, Factor b) { return total + a.first * b.first + a.second * b.second; }
#endif
#endif

// total[j][v] += a[j] b[v], where each a is the same in all lanes
template <int ROWS_A, int V>
INLINE void multiply_add(Vec (*total)[V], const Weight* a, const Factor* b) {
  Factor held[V];
#pragma GCC unroll 4
  for (int v = 0; v < V; ++v) held[v] = b[v], hold(held[v]);
#pragma GCC unroll 4
  for (int j = 0; j < ROWS_A; ++j) {
    const Factor weight = spread(a[j]);
#pragma GCC unroll 4
    for (int v = 0; v < V; ++v) total[j][v] = multiply_add(total[j][v], weight, held[v]);
  }
}

constexpr int factors(int numbers) { return (numbers + TERMS - 1) / TERMS; }

constexpr int H_FACTORS = factors(N), GATE_FACTORS = factors(GATES);

// The factors of rows of numbers, to multiply them with weights: the rows themselves, or `room` filled with pairs.
template <int V>
INLINE const Factor (*paired(const Vec (*x)[V], int rows, Factor (*room)[V]))[V] {
  if constexpr (TERMS == 1) return x;
  for (int k = 0; k < rows; k += 2)
    for (int v = 0; v < V; ++v) room[k / 2][v] = pair(x[k][v], k + 1 < rows ? x[k + 1][v] : Vec{});
  return room;
}

// Memory for one visit. A thread keeps it for the next: fresh pages would cost as much as a visit of a small layer.
class Scratch {
  static constexpr int64_t MOST = (64 << 20) / sizeof(Vec);  // vectors that are kept
  std::vector<std::unique_ptr<Vec[]>> blocks;
  int64_t size = 0, used = 0, total = 0;  // of the last block, of all

  void add(int64_t count) {
    blocks.emplace_back(new Vec[count]);
    size = count, used = 0, total += count;
  }

 public:
  // Begin anew; what was taken before is no more.
  void start() {
    const int64_t needed = blocks.size() > 1 ? total : 0;
    if (needed || total > MOST) blocks.clear(), size = total = 0;
    if (needed && needed <= MOST) add(needed);
    used = 0;
  }

  template <typename T = Vec>
  T* take(int64_t count) {
    const int64_t needed = (count * sizeof(T) + sizeof(Vec) - 1) / sizeof(Vec);
    if (blocks.empty() || used + needed > size) add(needed);
    used += needed;
    return reinterpret_cast<T*>(blocks.back().get() + used - needed);
  }

  template <typename T = Vec>
  T* zeros(int64_t count) {
    T* taken = take<T>(count);
    std::memset(taken, 0, count * sizeof(T));
    return taken;
  }
};

thread_local Scratch scratch;

// What the derivative of a tick needs, for one number of a synapse: tanh of the four gates and of the new c.
struct Gates {
  Vec i, g, f, o, squashed;
};

struct Cell {
  Gates gates;
  Vec c, h;
};

// Tick, from what enters the four gates; see native.cpp.
INLINE Cell cell_of(Vec u_i, Vec u_g, Vec u_f, Vec u_o, Vec c) {
  const Vec i = tanh(u_i), g = tanh(u_g), f = tanh(u_f), o = tanh(u_o);
  const Vec next = (0.5f + 0.5f * f) * c + (0.5f + 0.5f * i) * g;
  const Vec squashed = tanh(next);
  return {{i, g, f, o, squashed}, next, (0.5f + 0.5f * o) * squashed};
}

// Derivatives with respect to what enters the four gates, and to the c that a tick begins with.
struct Slopes {
  Vec i, g, f, o, c;
};

// Go back through a tick that began with c, from H and C, the derivatives with respect to its new h and c.
INLINE Slopes slopes_of(const Gates& now, Vec c, Vec H, Vec C) {
  const Vec D = C + H * (0.5f + 0.5f * now.o) * (1.0f - now.squashed * now.squashed);
  return {
      0.5f * D * now.g * (1.0f - now.i * now.i),
      D * (0.5f + 0.5f * now.i) * (1.0f - now.g * now.g),
      0.5f * D * c * (1.0f - now.f * now.f),
      0.5f * H * now.squashed * (1.0f - now.o * now.o),
      D * (0.5f + 0.5f * now.f),
  };
}

struct Sizes {
  int64_t members, tiles, rows, inputs;
  int64_t outputs() const { return tiles * rows; }
  int64_t state() const { return N * inputs * outputs(); }
  // Where output unit b's synapses begin in [G, N, R, I], and how far it is from one of their N numbers to the next.
  int64_t synapses(int64_t b) const { return (b / rows * N * rows + b % rows) * inputs; }
  int64_t stride() const { return rows * inputs; }
};

// Of h [..., G, N, R, I]; the axes before G are members.
Sizes sizes_of(const Floats& h) {
  auto dims = h.dimensions();
  const size_t rank = dims.size();
  Sizes size{1, dims[rank - 4], dims[rank - 2], dims[rank - 1]};
  for (size_t axis = 0; axis + 4 < rank; ++axis) size.members *= dims[axis];
  return size;
}

// W as products with h take it: for each number of a state the weights of its four gates.
typedef Weight Packed[H_FACTORS][4];

void pack(const float* W, Packed* packed) {
  for (int n = 0; n < N; ++n)
    for (int m = 0; m < N; m += TERMS)
      for (int j = 0; j < 4; ++j) {
        const float* row = W + (j * N + n) * N;
        packed[n][m / TERMS][j] = weight_of(row[m], m + 1 < N ? row[m + 1] : 0);
      }
}

// W as products with U take it.
void pack_transposed(const float* W, Weight (*packed)[N]) {
  for (int k = 0; k < GATES; k += TERMS)
    for (int n = 0; n < N; ++n) packed[k / TERMS][n] = weight_of(W[k * N + n], W[(k + TERMS - 1) * N + n]);
}

// H <- W^T U
template <int V>
INLINE void transposed_product(const Weight (*W)[N], const Vec (*U)[V], Vec (*H)[V]) {
  Factor room[TERMS > 1 ? GATE_FACTORS : 1][V];
  const Factor(*u)[V] = paired<V>(U, GATES, room);
  for (int n = 0; n < N; n += ROWS) {
    Vec total[ROWS][V] = {};
#pragma GCC unroll 4
    for (int k = 0; k < GATE_FACTORS; ++k) multiply_add<ROWS, V>(total, &W[k][n], u[k]);
    for (int j = 0; j < ROWS; ++j)
      for (int v = 0; v < V; ++v) H[n + j][v] = total[j][v];
  }
}

// The normalised messages n of a block, and r, which its derivative needs.
template <int V>
INLINE void normed_messages(const float* sender, const Vec (*h)[V], Vec (*n)[V], Vec* r) {
  for (int v = 0; v < V; ++v) {
    Vec mean{}, variance{};
#pragma GCC unroll 8
    for (int m = 0; m < CHANNELS; ++m) {
      Vec z = all(sender[N * CHANNELS + m]);
      for (int k = 0; k < N; ++k) z += sender[k * CHANNELS + m] * h[k][v];
      n[m][v] = z;
      mean += z / float(CHANNELS);
    }
    for (int m = 0; m < CHANNELS; ++m) {
      n[m][v] -= mean;
      variance += n[m][v] * n[m][v] / float(CHANNELS);
    }
    r[v] = 1.0f / square_root(variance + NORM_EPSILON);
    for (int m = 0; m < CHANNELS; ++m) n[m][v] *= r[v];
  }
}

// H += K dz, dK += h dz^T, dk += dz, where D comes in and dz takes its place
template <int V>
INLINE void normed_gradient(const float* sender, const Vec (*h)[V], Vec (*D)[V], int64_t count, Vec (*H)[V],
                            Vec (*dsender)[CHANNELS]) {
  Vec n[CHANNELS][V], r[V];
  normed_messages<V>(sender, h, n, r);
  for (int v = 0; v < V; ++v) {
    Vec mean{}, along{};
    for (int m = 0; m < CHANNELS; ++m) {
      mean += D[m][v] / float(CHANNELS);
      along += D[m][v] * n[m][v] / float(CHANNELS);
    }
    for (int m = 0; m < CHANNELS; ++m) {
      D[m][v] = r[v] * (D[m][v] - mean - n[m][v] * along);
      if (count < V * L) D[m][v] = keep(D[m][v], count - v * L);
    }
  }
  for (int k = 0; k <= N; ++k)
#pragma GCC unroll 8
    for (int m = 0; m < CHANNELS; ++m)
#pragma GCC unroll 4
      for (int v = 0; v < V; ++v) {
        dsender[k][m] += k < N ? h[k][v] * D[m][v] : D[m][v];
        if (k < N) H[k][v] += sender[k * CHANNELS + m] * D[m][v];
      }
}

}  // namespace
