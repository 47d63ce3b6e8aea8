// One token times a matrix of integer codes: the kernel that generates text. It is bound by reading memory.
#include "kernels/avx512/linear_int8_decode.h"

namespace scrimp::avx512 {
namespace {

// What is the same for every row: computed once per call, kept in scratch.
struct Token {
  int64_t segment;          // inputs per int32 sum
  const int32_t* start;     // [segments] where the int32 sum begins: -zero * sum of the activations (0 with mins)
  const float* scale;       // [segments] of the activations
  const float* group_sums;  // [groups] scaled sum of the activations, for mins
};

int32_t sum_of(const int8_t* x, int64_t n) {
  __m256i sum = _mm256_setzero_si256();
  for (int64_t k = 0; k < n; k += 32) {
    const __m256i quads = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(x + k));
    sum = _mm256_dpbusd_epi32(sum, _mm256_set1_epi8(1), quads);
  }
  const __m128i half = _mm_add_epi32(_mm256_castsi256_si128(sum), _mm256_extracti128_si256(sum, 1));
  const __m128i pair = _mm_add_epi32(half, _mm_shuffle_epi32(half, 0x4E));
  return _mm_cvtsi128_si32(_mm_add_epi32(pair, _mm_shuffle_epi32(pair, 0xB1)));
}

// Scratch: two arrays of one word per segment (at least 32 inputs) and one per group.
Token describe(const Matrix& w, const Activations& x, uint8_t* scratch) {
  const int64_t segment = segment_inputs(w, x);
  const int64_t most = (w.cols + 31) / 32 + 16;
  int32_t* start = reinterpret_cast<int32_t*>(scratch);
  float* scale = reinterpret_cast<float*>(start + most);
  float* group_sums = scale + most;
  const int32_t zero = w.mins == nullptr ? w.zero : 0;
  if (w.mins == nullptr && x.block < w.cols && segment == x.block) {  // all is there but for the factor
    const __m512i minus_zero = _mm512_set1_epi32(-zero);
    int64_t i = 0;
    for (; i + 16 <= x.blocks; i += 16) {
      _mm512_storeu_si512(start + i, _mm512_mullo_epi32(_mm512_loadu_si512(x.sums + i), minus_zero));
    }
    for (; i < x.blocks; ++i) start[i] = -zero * x.sums[i];
    start[i] = 0;
    return {segment, start, x.scales, nullptr};
  }
  int64_t i = 0;
  for (int64_t g = 0; g < w.groups; ++g) {
    const int64_t end = smaller(w.cols - g * w.group, w.group) + g * w.group;
    float group_sum = 0.0f;
    for (int64_t k = g * w.group; k < end; k += segment, ++i) {
      const bool per_block = x.block < w.cols;
      const int32_t sum = per_block ? x.sums[i] : sum_of(x.quads + k, smaller(end - k, segment));
      start[i] = -zero * sum;
      scale[i] = x.scales[per_block ? i : 0];
      group_sum = __builtin_fmaf(scale[i], static_cast<float>(sum), group_sum);
    }
    group_sums[g] = group_sum;
  }
  start[i] = 0;
  return {segment, start, scale, group_sums};
}

// group += scale of the activations of segment i * its exact sum
SCRIMP_INLINE __m512 add_segment(__m512 group, __m512i sum, const Token& token, int64_t i) {
  return _mm512_fmadd_ps(_mm512_cvtepi32_ps(sum), _mm512_set1_ps(token.scale[i]), group);
}

// y += scale of group g * its sum (+ min * sum of the activations)
template <bool kMins>
SCRIMP_INLINE __m512 add_group(__m512 y, __m512 group, const Matrix& w, const Token& token, int64_t tile, int64_t g) {
  const int64_t at = tile * w.scale_tile_stride + g * kTileRows;
  y = _mm512_fmadd_ps(load_scales(w.scales, w.scale_type, at), group, y);
  if constexpr (!kMins) return y;
  return _mm512_fmadd_ps(load_scales(w.mins, w.scale_type, at), _mm512_set1_ps(token.group_sums[g]), y);
}

// A walk along the planes of one tile and the activations, a step of 32 inputs at a time.
template <class Codes, Into kInto>
struct Walk {
  const Codes& codes;
  const uint8_t* plane0;
  const uint8_t* plane1;
  const int8_t* x;

  // `steps` (at least 1) steps added to `start`.
  template <int kParts, int kCopies>
  SCRIMP_INLINE __m512i sum(int64_t steps, __m512i start) {
    Sum<kParts, kCopies, Codes::kFieldBits, Codes::kUp> sum(start);
    do {
      prefetch<Codes, kInto>(plane0, plane1);
      codes.template step<kParts>(plane0, plane1, [&](auto q, auto part, __m512i quad) __attribute__((always_inline)) {
        sum.template add<part.value, q.value / Codes::kFields>(quad, x + 4 * q.value);
      });
      plane0 += Codes::kVectors[0] * kVectorBytes;
      plane1 += Codes::kVectors[1] * kVectorBytes;
      x += kStep;
    } while (--steps > 0);
    return sum.total();
  }
};

// The last, partial step of a row: from a copy followed by zeros, not to read beyond the planes.
template <class Codes>
__attribute__((noinline)) __m512i sum_rest(const Codes& codes, const Matrix& w, int64_t tile, const int8_t* x,
                                           __m512i start) {
  alignas(64) uint8_t rest[2][8 * kVectorBytes] = {};
  const int64_t steps = w.cols / kStep;
  for (int p = 0; p < 2; ++p) {
    const int64_t done = steps * Codes::kVectors[p];
    const int64_t left = Codes::kVectors[p] == 0 ? 0 : w.vectors[p] - done;
    for (int64_t v = 0; v < left; ++v) {
      _mm512_store_si512(rest[p] + v * kVectorBytes, load(w.plane[p], tile * w.vectors[p] + done + v));
    }
  }
  Walk<Codes, Into::kNothing> walk = {codes, rest[0], rest[1], x + steps * kStep};
  return walk.template sum<1, 1>(1, start);
}

// One tile of planes of bits. kSteps: of a segment, 0 if more than one.
template <class Codes, int kSteps, bool kMins, Into kInto>
SCRIMP_INLINE __m512 tile_of_planes(const Codes& codes, const Matrix& w, const Token& token, const int8_t* x,
                                    int64_t tile) {
  // Parts save shifts and cost some at the end. Brief segments overlap each other and need no copies.
  constexpr int kParts = static_cast<int>(kSteps == 1 ? smaller(Codes::kFields, 2) : Codes::kFields);
  constexpr int kCopies = kSteps == 1 ? 1 : 8 / kParts;
  Walk<Codes, kInto> walk = {codes, w.plane[0] + tile * w.vectors[0] * kVectorBytes,
                             w.plane[1] + (Codes::kVectors[1] == 0 ? 0 : tile * w.vectors[1] * kVectorBytes), x};
  const auto start = [&](int64_t i) __attribute__((always_inline)) { return _mm512_set1_epi32(token.start[i]); };
  const int64_t steps = kSteps == 1 ? 1 : (token.segment + kStep - 1) / kStep;
  __m512 y = _mm512_setzero_ps();
  int64_t i = 0;
  for (int64_t g = 0; g < w.groups; ++g) {
    const int64_t inputs = smaller(w.cols - g * w.group, w.group);
    __m512 group = _mm512_setzero_ps();
    int64_t left = inputs / kStep;
    for (; left >= steps; left -= steps, ++i) {
      group = add_segment(group, walk.template sum<kParts, kCopies>(steps, start(i)), token, i);
    }
    if (left > 0 || inputs % kStep != 0) {  // the last segment of a group may be short, that of the row ragged
      __m512i sum = start(i);
      if (left > 0) sum = walk.template sum<1, 1>(left, sum);
      if (inputs % kStep != 0) sum = sum_rest(codes, w, tile, x, sum);
      group = add_segment(group, sum, token, i++);
    }
    y = add_group<kMins>(y, group, w, token, tile, g);
  }
  return y;
}

// One tile of trits: 5 quads per vector, so segments (8, 16, ... quads) and groups end in the middle of vectors. Eight
// vectors are 40 quads: a segment can end only at the five places where 8 divides the count.
template <int kSteps, bool kMins>
SCRIMP_INLINE __m512 tile_of_trits(const Trits& trits, const Matrix& w, const Token& token, const int8_t* x,
                                   int64_t tile) {
  using Sums = Sum<1, kSteps == 1 ? 1 : 4, 0, 0>;
  const uint8_t* p = w.plane[0] + tile * w.vectors[0] * kVectorBytes;
  __m512 y = _mm512_setzero_ps();
  __m512 group = _mm512_setzero_ps();
  Sums sum(_mm512_set1_epi32(token.start[0]));
  int64_t i = 0;
  int64_t g = 0;
  int64_t k = 0;  // inputs done, at multiples of 32
  int64_t segment_end = smaller(token.segment, w.cols);
  int64_t group_end = smaller(w.group, w.cols);

  const auto end_segment = [&]() __attribute__((always_inline)) {
    group = add_segment(group, sum.total(), token, i++);
    sum = Sums(_mm512_set1_epi32(token.start[i]));
  };
  const auto end_group = [&]() __attribute__((always_inline)) {
    y = add_group<kMins>(y, group, w, token, tile, g++);
    group = _mm512_setzero_ps();
    group_end += smaller(w.group, w.cols - group_end);
  };
  const auto boundary = [&]() __attribute__((always_inline)) {
    k += kStep;
    if constexpr (kSteps != 1) {
      if (k < segment_end) return;
    }
    end_segment();
    if (k >= group_end) end_group();
    segment_end += smaller(token.segment, group_end - segment_end);
  };

  int64_t v = 0;
  for (; v + 8 <= w.vectors[0]; v += 8) {
    each<8>([&](auto n) __attribute__((always_inline)) {
      trits.vector(p + n.value * kVectorBytes, [&](auto q, __m512i codes) __attribute__((always_inline)) {
        constexpr int kQuad = n.value * 5 + q.value;
        sum.template add<0, n.value>(codes, x + 4 * kQuad);
        if constexpr (kQuad % 8 == 7) boundary();
      });
    });
    p += 8 * kVectorBytes;
    x += 160;
  }
  int64_t quad = v * 5;
  for (; v < w.vectors[0]; ++v, p += kVectorBytes) {
    trits.vector(p, [&](auto, __m512i codes) __attribute__((always_inline)) {
      sum.template add<0, 0>(codes, x);
      x += 4;
      if (++quad % 8 == 0 && g < w.groups) boundary();
    });
  }
  if (g < w.groups) {  // a ragged row: its last segment ended between the places looked at
    end_segment();
    end_group();
  }
  return y;
}

void store(const Matrix& w, int64_t tile, float* y, __m512 values) {
  _mm512_mask_storeu_ps(y + tile * kTileRows, rows_of(w, tile), _mm512_mul_ps(values, _mm512_set1_ps(w.factor)));
}

template <int kSteps, bool kMins, Into kInto, class Codes>
void decode_planes(const Codes& codes, const Matrix& w, const Token& token, const int8_t* x, int64_t tile_begin,
                   int64_t tile_end, float* y) {
  for (int64_t tile = tile_begin; tile < tile_end; ++tile) {
    store(w, tile, y, tile_of_planes<Codes, kSteps, kMins, kInto>(codes, w, token, x, tile));
  }
}

template <int kSteps, bool kMins>
void decode(const Matrix& w, const Token& token, const int8_t* x, int64_t tile_begin, int64_t tile_end, float* y) {
  if (w.element == Element::kTernary) {
    const Trits trits;
    for (int64_t tile = tile_begin; tile < tile_end; ++tile) {
      store(w, tile, y, tile_of_trits<kSteps, kMins>(trits, w, token, x, tile));
    }
    return;
  }
  with_planes(w, [&](auto codes) {
    constexpr Into kLong = cache_of<decltype(codes)>(!kMins), kShort = cache_of<decltype(codes)>(false);
    const auto run = w.group >= 64 ? decode_planes<kSteps, kMins, kLong, decltype(codes)>
                                   : decode_planes<kSteps, kMins, kShort, decltype(codes)>;
    run(codes, w, token, x, tile_begin, tile_end, y);
  });
}

}  // namespace

// y[n] = sum_g s[n,g] * sum_{a in g} sx[a] * (sum_{k in a} u[n,k]*x[k] - zero*sum_{k in a} x[k])  [+ m[n,g] * sum ...]
//
// Shapes: w N x K in tiles of 16 rows, x one row of int8; y gets the rows of tiles [tile_begin, tile_end).
// Exactness: the inner sum starts at -zero * sum of x and is exact in int32; one rounding per scale and per addition.
// Cost: every stored byte is read once, tiles in order: one contiguous stream per plane and thread. Per quad (64
// weights) one dot with a broadcast from memory, and 0 to 4 instructions of unpacking; per segment a convert and a
// multiply-add. Scratch: (cols/32 + 16) * 3 words.
void linear_int8_decode(const Matrix& w, const Activations& x, int64_t tile_begin, int64_t tile_end, float* y,
                        uint8_t* scratch) {
  const Token token = describe(w, x, scratch);
  const bool one = token.segment <= kStep;
  const auto run =
      w.mins == nullptr ? (one ? decode<1, false> : decode<0, false>) : (one ? decode<1, true> : decode<0, true>);
  run(w, token, x.quads, tile_begin, tile_end, y);
}

}  // namespace scrimp::avx512
