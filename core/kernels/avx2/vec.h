// One vector of floats for AVX2 + FMA + F16C: 8 lanes, half the rows of a tile. The texts in ../simd are written over
// it. Everything here has internal linkage: nothing compiled with these flags can be merged into another object file.
#pragma once

#include <immintrin.h>
#include <stdint.h>

#include "kernels/avx2/powers.h"

namespace scrimp::avx2 {
namespace {

constexpr int64_t kLanes = 8;
constexpr int kProductVecs = 2;        // register block of ../simd/product.inl: 2 x 6 sums, 2 weights, 1 activation
constexpr int kProductTokens = 6;      // of 16 registers
constexpr int kProductFew = 2;         // up to which 4 vectors are taken
constexpr int64_t kStoredTokens = 12;  // above, weights of 16 bits are widened once for all tokens

struct Vec {
  __m256 v;
};

// Lanes 0 .. count-1, 0 <= count <= 8.
inline __m256i first(int64_t count) {
  return _mm256_cmpgt_epi32(_mm256_set1_epi32(static_cast<int>(count)), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
}

inline Vec load(const float* p) { return {_mm256_loadu_ps(p)}; }
inline Vec broadcast(float x) { return {_mm256_set1_ps(x)}; }
inline Vec load_first(const float* p, int64_t count, Vec other) {
  const __m256i mask = first(count);
  return {_mm256_blendv_ps(other.v, _mm256_maskload_ps(p, mask), _mm256_castsi256_ps(mask))};
}
inline void store(float* p, Vec a) { _mm256_storeu_ps(p, a.v); }
inline void store_first(float* p, Vec a, int64_t count) { _mm256_maskstore_ps(p, first(count), a.v); }
inline Vec keep_first(Vec a, int64_t count) { return {_mm256_and_ps(a.v, _mm256_castsi256_ps(first(count)))}; }

inline Vec operator+(Vec a, Vec b) { return {_mm256_add_ps(a.v, b.v)}; }
inline Vec operator-(Vec a, Vec b) { return {_mm256_sub_ps(a.v, b.v)}; }
inline Vec operator*(Vec a, Vec b) { return {_mm256_mul_ps(a.v, b.v)}; }
inline Vec operator/(Vec a, Vec b) { return {_mm256_div_ps(a.v, b.v)}; }
inline Vec fma(Vec a, Vec b, Vec c) { return {_mm256_fmadd_ps(a.v, b.v, c.v)}; }

// The larger; b where either is NaN.
inline Vec max(Vec a, Vec b) { return {_mm256_max_ps(a.v, b.v)}; }
inline Vec min(Vec a, Vec b) { return {_mm256_min_ps(a.v, b.v)}; }
inline float sum(Vec a) {
  __m128 half = _mm_add_ps(_mm256_castps256_ps128(a.v), _mm256_extractf128_ps(a.v, 1));
  half = _mm_add_ps(half, _mm_movehl_ps(half, half));
  return _mm_cvtss_f32(_mm_add_ss(half, _mm_shuffle_ps(half, half, 1)));
}
inline float largest(Vec a) {
  __m128 half = _mm_max_ps(_mm256_castps256_ps128(a.v), _mm256_extractf128_ps(a.v, 1));
  half = _mm_max_ps(half, _mm_movehl_ps(half, half));
  return _mm_cvtss_f32(_mm_max_ss(half, _mm_shuffle_ps(half, half, 1)));
}
inline bool any_above(Vec a, Vec b) { return _mm256_movemask_ps(_mm256_cmp_ps(a.v, b.v, _CMP_GT_OQ)) != 0; }
inline bool any_equal(Vec a, Vec b) { return _mm256_movemask_ps(_mm256_cmp_ps(a.v, b.v, _CMP_EQ_OQ)) != 0; }

inline Vec round_even(Vec a) { return {_mm256_round_ps(a.v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC)}; }
// a * 2^n for integral n, |n| < 250: by two powers, since one alone could overflow where the result does not.
inline Vec scale_by_power(Vec a, Vec n) {
  const __m256i bias = _mm256_set1_epi32(127);
  const __m256i whole = _mm256_cvtps_epi32(n.v);
  const __m256i half = _mm256_srai_epi32(whole, 1);
  const __m256i rest = _mm256_sub_epi32(whole, half);
  const __m256 first_power = _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_add_epi32(half, bias), 23));
  const __m256 second_power = _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_add_epi32(rest, bias), 23));
  return {_mm256_mul_ps(_mm256_mul_ps(a.v, first_power), second_power)};
}

inline Vec load_f16(const uint16_t* p) {
  return {_mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)))};
}
inline Vec load_f16_first(const uint16_t* p, int64_t count) {
  uint16_t halves[8] = {};
  for (int64_t i = 0; i < count; ++i) halves[i] = p[i];
  return load_f16(halves);
}
inline void store_f16(uint16_t* p, Vec a) {
  _mm_storeu_si128(reinterpret_cast<__m128i*>(p), _mm256_cvtps_ph(a.v, _MM_FROUND_TO_NEAREST_INT));
}
inline void store_f16_first(uint16_t* p, Vec a, int64_t count) {
  uint16_t halves[8];
  store_f16(halves, a);
  for (int64_t i = 0; i < count; ++i) p[i] = halves[i];
}
// Integers of 8 bits; and 4 bits of each byte from `shift` on, each 8 more than it means. Always 8 bytes.
inline Vec load_int8(const uint8_t* p) {
  return {_mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(p))))};
}
inline Vec load_int4(const uint8_t* p, int shift) {
  const __m256i bytes = _mm256_cvtepu8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(p)));
  const __m256i codes = _mm256_and_si256(_mm256_srl_epi32(bytes, _mm_cvtsi32_si128(shift)), _mm256_set1_epi32(15));
  return {_mm256_cvtepi32_ps(_mm256_sub_epi32(codes, _mm256_set1_epi32(8)))};
}
// Of integral values in -128 .. 127.
inline void store_int8(uint8_t* p, Vec a) {
  const __m256i wide = _mm256_cvtps_epi32(a.v);
  const __m128i words = _mm_packs_epi32(_mm256_castsi256_si128(wide), _mm256_extracti128_si256(wide, 1));
  _mm_storel_epi64(reinterpret_cast<__m128i*>(p), _mm_packs_epi16(words, words));
}
inline Vec load_bf16(const uint16_t* p) {
  const __m128i halves = _mm_loadu_si128(reinterpret_cast<const __m128i*>(p));
  return {_mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(halves), 16))};
}

inline Vec load_e8m0(const uint8_t* p) { return {powers_of_two(p)}; }

// Stored codes: four bytes for each row.
struct Quad {
  __m256i v;
};

inline Quad load_quad(const uint8_t* p) { return {_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p))}; }
inline Quad shift_right(Quad a, unsigned bits) { return {_mm256_srli_epi32(a.v, static_cast<int>(bits))}; }
inline Quad shift_left(Quad a, unsigned bits) { return {_mm256_slli_epi32(a.v, static_cast<int>(bits))}; }
inline Quad operator&(Quad a, uint32_t mask) {
  return {_mm256_and_si256(a.v, _mm256_set1_epi32(static_cast<int>(mask)))};
}
inline Quad operator|(Quad a, Quad b) { return {_mm256_or_si256(a.v, b.v)}; }
// On each 16 bits by itself.
inline Quad subtract16(Quad a, Quad b) { return {_mm256_sub_epi16(a.v, b.v)}; }
inline Quad multiply16(Quad a, int16_t b) { return {_mm256_mullo_epi16(a.v, _mm256_set1_epi16(b))}; }
inline Quad shift_right16(Quad a, unsigned bits) { return {_mm256_srli_epi16(a.v, static_cast<int>(bits))}; }

// Of each row: the 32 bits as an integer; as a float; the low 16 bits as a half.
inline Vec from_integers(Quad a) { return {_mm256_cvtepi32_ps(a.v)}; }
inline Vec from_bits(Quad a) { return {_mm256_castsi256_ps(a.v)}; }
inline Vec from_low_half(Quad a) {
  const __m256i low = _mm256_and_si256(a.v, _mm256_set1_epi32(0xFFFF));
  return {_mm256_cvtph_ps(_mm_packus_epi32(_mm256_castsi256_si128(low), _mm256_extracti128_si256(low, 1)))};
}

// 16 numbers, looked up by each row's integer below 16.
struct Table {
  __m256 low, high;
  explicit Table(const float* p) : low(_mm256_loadu_ps(p)), high(_mm256_loadu_ps(p + 8)) {}
};
inline Vec look_up(const Table& table, Quad at) {
  const __m256 upper = _mm256_castsi256_ps(_mm256_slli_epi32(at.v, 28));  // its sign is bit 3
  return {
      _mm256_blendv_ps(_mm256_permutevar8x32_ps(table.low, at.v), _mm256_permutevar8x32_ps(table.high, at.v), upper)};
}

// The same lanes in double precision.
struct Wide {
  __m256d low, high;
};

inline Wide widen(Vec a) {
  return {_mm256_cvtps_pd(_mm256_castps256_ps128(a.v)), _mm256_cvtps_pd(_mm256_extractf128_ps(a.v, 1))};
}
inline Wide wide(double x) { return {_mm256_set1_pd(x), _mm256_set1_pd(x)}; }
inline Wide operator+(Wide a, Wide b) { return {_mm256_add_pd(a.low, b.low), _mm256_add_pd(a.high, b.high)}; }
inline Wide operator-(Wide a, Wide b) { return {_mm256_sub_pd(a.low, b.low), _mm256_sub_pd(a.high, b.high)}; }
inline Wide fma(Wide a, Wide b, Wide c) {
  return {_mm256_fmadd_pd(a.low, b.low, c.low), _mm256_fmadd_pd(a.high, b.high, c.high)};
}
// a where b is not zero, else 0.
inline Wide where_nonzero(Wide a, Wide b) {
  const __m256d zero = _mm256_setzero_pd();
  return {_mm256_and_pd(_mm256_cmp_pd(b.low, zero, _CMP_NEQ_UQ), a.low),
          _mm256_and_pd(_mm256_cmp_pd(b.high, zero, _CMP_NEQ_UQ), a.high)};
}
inline double sum(Wide a) {
  const __m256d all = _mm256_add_pd(a.low, a.high);
  const __m128d half = _mm_add_pd(_mm256_castpd256_pd128(all), _mm256_extractf128_pd(all, 1));
  return _mm_cvtsd_f64(_mm_add_sd(half, _mm_unpackhi_pd(half, half)));
}

}  // namespace
}  // namespace scrimp::avx2
