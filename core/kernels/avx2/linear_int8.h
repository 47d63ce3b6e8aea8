// What the one-token and the many-token products share: segments, scales, and the dot product.
#pragma once

#include "kernels/avx2/isa.h"
#include "kernels/avx2/powers.h"
#include "kernels/avx2/unpack.h"

namespace scrimp::avx2 {

// One token: each stored vector is unpacked in registers and used at once.
void linear_int8_decode(const Matrix& w, const Activations& x, int64_t tile_begin, int64_t tile_end, float* y,
                        uint8_t* scratch);
// Many tokens: 16 rows are unpacked into scratch, then multiplied by every token.
void linear_int8_prefill(const Matrix& w, const Activations& x, int64_t tile_begin, int64_t tile_end, float* y,
                         int64_t y_stride, uint8_t* scratch);

// Inputs [begin, end) of one panel are cut at the ends of groups and segments into pieces: one int32 sum each.
struct Pieces {
  int32_t* start;     // [pieces][tokens] where the int32 sum begins: -zero * sum of the activations (0 with mins)
  float* scale;       // [pieces][tokens] of the activations
  float* group_sums;  // [groups][tokens] scaled sums of the activations, for mins
};

// Fill them for the token block that begins with token `first`.
void describe_pieces(const Matrix& w, const Activations& x, int64_t begin, int64_t end, int64_t first,
                     const Pieces& pieces);

namespace {

constexpr int64_t smaller(int64_t a, int64_t b) { return a < b ? a : b; }

// Where the segment, group or chunk that holds input k ends.
constexpr int64_t end_of(int64_t k, int64_t length, int64_t limit) { return smaller((k / length + 1) * length, limit); }

// Inputs whose products are summed in int32 before a scale is applied: a block of activations or a group of weights,
// whichever is shorter, and never so long that int32 could overflow (255 * 127 * 65536 < 2^31).
inline int64_t segment_inputs(const Matrix& w, const Activations& x) {
  constexpr int64_t kLongest = 65536;
  return smaller(smaller(smaller(w.group, x.block), w.cols), kLongest);
}

// Four activations broadcast to 8 rows.
SCRIMP_INLINE __m256i broadcast(const int8_t* quad) { return _mm256_broadcastd_epi32(_mm_loadu_si32(quad)); }

// sum += codes * activations, in 16 bits: exact for eight quads of codes below 16.
// The empty assembly holds the order of the additions: GCC 12 otherwise regroups them, and keeps a step's worth of
// products on the stack.
SCRIMP_INLINE void dot(Vector& sum, const Vector& codes, __m256i x) {
  each<2>([&](auto h) __attribute__((always_inline)) {
    __m256i next = _mm256_add_epi16(sum.half[h.value], _mm256_maddubs_epi16(codes.half[h.value], x));
    asm volatile("" : "+x"(next));
    sum.half[h.value] = next;
  });
}

// wide += weight * (pairs of narrow), exact in int32.
SCRIMP_INLINE void widen(Vector& wide, const Vector& narrow, __m256i weight) {
  each<2>([&](auto h) __attribute__((always_inline)) {
    wide.half[h.value] = _mm256_add_epi32(wide.half[h.value], _mm256_madd_epi16(narrow.half[h.value], weight));
  });
}

struct Floats {
  __m256 half[2];  // rows 0..7 and 8..15
};

SCRIMP_INLINE Floats zeros() { return {{_mm256_setzero_ps(), _mm256_setzero_ps()}}; }

// y += a * b
SCRIMP_INLINE void add_product(Floats& y, const Floats& a, const Floats& b) {
  each<2>([&](auto h) __attribute__((always_inline)) {
    y.half[h.value] = _mm256_fmadd_ps(a.half[h.value], b.half[h.value], y.half[h.value]);
  });
}

// y += a * scale, the same for all rows
SCRIMP_INLINE void add_scaled(Floats& y, const Floats& a, float scale) {
  const __m256 s = _mm256_set1_ps(scale);
  add_product(y, a, {{s, s}});
}

SCRIMP_INLINE Floats times(const Floats& a, float factor) {
  const __m256 f = _mm256_set1_ps(factor);
  return {{_mm256_mul_ps(a.half[0], f), _mm256_mul_ps(a.half[1], f)}};
}

SCRIMP_INLINE Floats to_floats(const Vector& v) {
  return {{_mm256_cvtepi32_ps(v.half[0]), _mm256_cvtepi32_ps(v.half[1])}};
}

// 16 scales (or mins) of one tile and group, as float.
SCRIMP_INLINE Floats load_scales(const void* plane, ScaleType type, int64_t at) {
  if (type == ScaleType::kF32) {
    const float* p = static_cast<const float*>(plane) + at;
    return {{_mm256_loadu_ps(p), _mm256_loadu_ps(p + 8)}};
  }
  if (type == ScaleType::kE8m0) {
    const uint8_t* p = static_cast<const uint8_t*>(plane) + at;
    return {{powers_of_two(p), powers_of_two(p + 8)}};
  }
  const __m128i* p = reinterpret_cast<const __m128i*>(static_cast<const uint16_t*>(plane) + at);
  const __m128i low = _mm_loadu_si128(p);
  const __m128i high = _mm_loadu_si128(p + 1);
  if (type == ScaleType::kF16) return {{_mm256_cvtph_ps(low), _mm256_cvtph_ps(high)}};
  return {{_mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(low), 16)),
           _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(high), 16))}};
}

// Rows `count` of 16 floats from and to memory, the others neither read nor written.
inline Floats load_rows(const float* y, int64_t count) {
  alignas(32) float rows[kTileRows] = {};
  for (int64_t i = 0; i < smaller(count, kTileRows); ++i) rows[i] = y[i];
  return {{_mm256_load_ps(rows), _mm256_load_ps(rows + 8)}};
}

inline void store_rows(float* y, int64_t count, const Floats& values) {
  if (count >= kTileRows) {
    _mm256_storeu_ps(y, values.half[0]);
    _mm256_storeu_ps(y + 8, values.half[1]);
    return;
  }
  alignas(32) float rows[kTileRows];
  _mm256_store_ps(rows, values.half[0]);
  _mm256_store_ps(rows + 8, values.half[1]);
  for (int64_t i = 0; i < count; ++i) y[i] = rows[i];
}

}  // namespace
}  // namespace scrimp::avx2
