// One token times a matrix of integer codes: the kernel that generates text. It is bound by reading memory.
#include "kernels/avx512/linear_int8.h"

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
  int64_t i = 0;
  for (int64_t g = 0; g < w.groups; ++g) {
    const int64_t end = smaller(w.cols - g * w.group, w.group) + g * w.group;
    float group_sum = 0.0f;
    for (int64_t k = g * w.group; k < end; k += segment, ++i) {
      const bool per_block = x.block < w.cols;
      const int32_t sum = per_block ? x.sums[i] : sum_of(x.quads + k, smaller(end - k, segment));
      start[i] = -zero * sum;
      scale[i] = x.scales[per_block ? i : 0];
      group_sum += scale[i] * static_cast<float>(sum);
    }
    group_sums[g] = group_sum;
  }
  start[i] = 0;
  return {segment, start, scale, group_sums};
}

// The 16 outputs of one tile while they are being summed: an int32 sum per segment, a float sum per group.
template <bool kMins>
struct Tile {
  const Matrix& w;
  const Token& token;
  int64_t scale_at;
  __m512 y = _mm512_setzero_ps();
  __m512 group = _mm512_setzero_ps();
  __m512i sum;

  SCRIMP_INLINE Tile(const Matrix& matrix, const Token& t, int64_t tile)
      : w(matrix), token(t), scale_at(tile * matrix.scale_tile_stride), sum(_mm512_set1_epi32(t.start[0])) {}

  SCRIMP_INLINE void end_segment(int64_t i) {
    group = _mm512_fmadd_ps(_mm512_cvtepi32_ps(sum), _mm512_set1_ps(token.scale[i]), group);
    sum = _mm512_set1_epi32(token.start[i + 1]);
  }

  SCRIMP_INLINE void end_group(int64_t g) {
    y = _mm512_fmadd_ps(load_scales(w.scales, w.scale_type, scale_at), group, y);
    if constexpr (kMins) {
      const __m512 mins = load_scales(w.mins, w.scale_type, scale_at);
      y = _mm512_fmadd_ps(mins, _mm512_set1_ps(token.group_sums[g]), y);
    }
    group = _mm512_setzero_ps();
    scale_at += kTileRows;
  }
};

// One tile of planes of bits.
template <class Codes, bool kMins>
SCRIMP_INLINE __m512 tile_of_planes(const Matrix& w, const Token& token, const int8_t* x, int64_t tile) {
  constexpr int64_t kStep = 32;
  const uint8_t* p0 = w.plane[0] + tile * w.vectors[0] * kVectorBytes;
  const uint8_t* p1 = Codes::kVectors[1] == 0 ? nullptr : w.plane[1] + tile * w.vectors[1] * kVectorBytes;
  Tile<kMins> out(w, token, tile);

  const auto step = [&](const uint8_t* a, const uint8_t* b) __attribute__((always_inline)) {
    Codes::step(a, b, [&](auto q, __m512i codes) __attribute__((always_inline)) { dot(out.sum, codes, x + 4 * q.value); });
  };
  const auto steps = [&](int64_t n) __attribute__((always_inline)) {
    for (; n > 0; --n) {
      step(p0, p1);
      p0 += Codes::kVectors[0] * kVectorBytes;
      p1 += Codes::kVectors[1] * kVectorBytes;
      x += kStep;
    }
  };

  int64_t i = 0;
  int64_t k = 0;
  for (int64_t g = 0; g < w.groups; ++g) {
    const int64_t whole = smaller(w.cols - g * w.group, w.group) / kStep * kStep + g * w.group;
    while (k < whole) {
      const int64_t inputs = smaller(token.segment, whole - k);
      steps(inputs / kStep);
      k += inputs;
      // A ragged rest of the row belongs to the segment before it unless that one is full.
      if (k == whole && whole < w.cols && g + 1 == w.groups && inputs < token.segment) break;
      out.end_segment(i++);
    }
    if (g + 1 == w.groups && k < w.cols) {  // the last, partial step: from a copy, not to read beyond the planes
      alignas(64) uint8_t rest[2][8 * kVectorBytes] = {};
      each<2>([&](auto p) __attribute__((always_inline)) {
        if constexpr (Codes::kVectors[p.value] != 0) {
          const int64_t done = k / kStep * Codes::kVectors[p.value];
          const uint8_t* from = p.value == 0 ? p0 : p1;
          for (int64_t v = 0; v < w.vectors[p.value] - done; ++v) {
            _mm512_store_si512(rest[p.value] + v * kVectorBytes, load(from, v));
          }
        }
      });
      step(rest[0], rest[1]);
      out.end_segment(i);
    }
    out.end_group(g);
  }
  return out.y;
}

// One tile of trits: 5 quads per vector, so segments (8, 16, ... quads) and groups end in the middle of vectors. Eight
// vectors are 40 quads: a segment can end only at the five places where 8 divides the count.
template <bool kMins>
SCRIMP_INLINE __m512 tile_of_trits(const Trits& trits, const Matrix& w, const Token& token, const int8_t* x, int64_t tile) {
  const uint8_t* p = w.plane[0] + tile * w.vectors[0] * kVectorBytes;
  Tile<kMins> out(w, token, tile);
  int64_t i = 0;
  int64_t g = 0;
  int64_t k = 0;                                      // inputs done, at multiples of 32
  int64_t segment_end = smaller(token.segment, w.cols);
  int64_t group_end = smaller(w.group, w.cols);

  const auto boundary = [&]() __attribute__((always_inline)) {
    k += 32;
    if (k < segment_end) return;
    out.end_segment(i++);
    if (k >= group_end) {
      out.end_group(g++);
      group_end += smaller(w.group, w.cols - group_end);
    }
    segment_end += smaller(token.segment, group_end - segment_end);
  };

  int64_t v = 0;
  for (; v + 8 <= w.vectors[0]; v += 8) {
    each<8>([&](auto n) __attribute__((always_inline)) {
      trits.vector(p + n.value * kVectorBytes, [&](auto q, __m512i codes) __attribute__((always_inline)) {
        constexpr int kQuad = n.value * 5 + q.value;
        dot(out.sum, codes, x + 4 * kQuad);
        if constexpr (kQuad % 8 == 7) boundary();
      });
    });
    p += 8 * kVectorBytes;
    x += 160;
  }
  int64_t quad = v * 5;
  for (; v < w.vectors[0]; ++v, p += kVectorBytes) {
    trits.vector(p, [&](auto, __m512i codes) __attribute__((always_inline)) {
      dot(out.sum, codes, x);
      x += 4;
      if (++quad % 8 == 0 && g < w.groups) boundary();
    });
  }
  if (g < w.groups) {  // a ragged row: its last segment ended between the places looked at
    out.end_segment(i);
    out.end_group(g);
  }
  return out.y;
}

void store(const Matrix& w, int64_t tile, float* y, __m512 values) {
  _mm512_mask_storeu_ps(y + tile * kTileRows, rows_of(w, tile), values);
}

template <bool kMins>
void decode(const Matrix& w, const Token& token, const int8_t* x, int64_t tile_begin, int64_t tile_end, float* y) {
  if (w.element == Element::kTernary) {
    const Trits trits;
    for (int64_t tile = tile_begin; tile < tile_end; ++tile) {
      store(w, tile, y, tile_of_trits<kMins>(trits, w, token, x, tile));
    }
    return;
  }
  with_planes(w, [&](auto codes) {
    for (int64_t tile = tile_begin; tile < tile_end; ++tile) {
      store(w, tile, y, tile_of_planes<decltype(codes), kMins>(w, token, x, tile));
    }
  });
}

}  // namespace

// y[n] = sum_g s[n,g] * sum_{a in g} sx[a] * (sum_{k in a} u[n,k]*x[k] - zero*sum_{k in a} x[k])  [+ m[n,g] * sum ...]
//
// Shapes: w N x K in tiles of 16 rows, x one row of int8; y gets the rows of tiles [tile_begin, tile_end).
// Exactness: the inner sum starts at -zero * sum of x and is exact in int32; one rounding per scale and per addition.
// Cost: every stored byte is read once, tiles in order: one contiguous stream per plane and thread. Per quad (64 weights)
// one load+broadcast+dot, and 0 to 4 instructions of unpacking; per segment a convert and a multiply-add.
// Scratch: (cols/32 + 16) * 3 words.
void linear_int8_decode(const Matrix& w, const Activations& x, int64_t tile_begin, int64_t tile_end, float* y,
                        uint8_t* scratch) {
  const Token token = describe(w, x, scratch);
  if (w.mins == nullptr) decode<false>(w, token, x.quads, tile_begin, tile_end, y);
  else decode<true>(w, token, x.quads, tile_begin, tile_end, y);
}

}  // namespace scrimp::avx512
