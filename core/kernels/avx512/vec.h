// One vector of floats for AVX-512: 16 lanes, one per row of a tile. The texts in ../simd are written over this type.
// Everything here has internal linkage: nothing compiled with these flags can be merged into another object file.
#pragma once

#include <stdint.h>

#include "kernels/avx512/intrinsics.h"
#include "kernels/avx512/powers.h"

namespace scrimp::avx512 {
namespace {

constexpr int64_t kLanes = 16;
constexpr int kProductVecs = 2;        // register block of ../simd/product.inl: 2 x 12 sums, 2 weights, 1 activation
constexpr int kProductTokens = 12;     // of 32 registers
constexpr int kProductFew = 6;         // up to which 4 vectors are taken
constexpr int64_t kStoredTokens = 48;  // above, weights of 16 bits are widened once for all tokens

struct Vec {
  __m512 v;
};

// Lanes 0 .. count-1, 0 <= count <= 16.
inline __mmask16 first(int64_t count) { return static_cast<__mmask16>((1u << count) - 1u); }

inline Vec load(const float* p) { return {_mm512_loadu_ps(p)}; }
inline Vec broadcast(float x) { return {_mm512_set1_ps(x)}; }
inline Vec load_first(const float* p, int64_t count, Vec other) {
  return {_mm512_mask_loadu_ps(other.v, first(count), p)};
}
inline void store(float* p, Vec a) { _mm512_storeu_ps(p, a.v); }
inline void store_first(float* p, Vec a, int64_t count) { _mm512_mask_storeu_ps(p, first(count), a.v); }
inline Vec keep_first(Vec a, int64_t count) { return {_mm512_maskz_mov_ps(first(count), a.v)}; }

inline Vec operator+(Vec a, Vec b) { return {_mm512_add_ps(a.v, b.v)}; }
inline Vec operator-(Vec a, Vec b) { return {_mm512_sub_ps(a.v, b.v)}; }
inline Vec operator*(Vec a, Vec b) { return {_mm512_mul_ps(a.v, b.v)}; }
inline Vec operator/(Vec a, Vec b) { return {_mm512_div_ps(a.v, b.v)}; }
inline Vec fma(Vec a, Vec b, Vec c) { return {_mm512_fmadd_ps(a.v, b.v, c.v)}; }

// The larger; b where either is NaN.
inline Vec max(Vec a, Vec b) { return {_mm512_max_ps(a.v, b.v)}; }
inline Vec min(Vec a, Vec b) { return {_mm512_min_ps(a.v, b.v)}; }
inline float sum(Vec a) { return _mm512_reduce_add_ps(a.v); }
inline float largest(Vec a) { return _mm512_reduce_max_ps(a.v); }
inline bool any_above(Vec a, Vec b) { return _mm512_cmp_ps_mask(a.v, b.v, _CMP_GT_OQ) != 0; }
inline bool any_equal(Vec a, Vec b) { return _mm512_cmp_ps_mask(a.v, b.v, _CMP_EQ_OQ) != 0; }

inline Vec round_even(Vec a) { return {_mm512_roundscale_ps(a.v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC)}; }
// a * 2^n for integral n, rounded once.
inline Vec scale_by_power(Vec a, Vec n) { return {_mm512_scalef_ps(a.v, n.v)}; }

inline Vec load_f16(const uint16_t* p) {
  return {_mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)))};
}
inline Vec load_f16_first(const uint16_t* p, int64_t count) {
  return {_mm512_cvtph_ps(_mm256_maskz_loadu_epi16(first(count), p))};
}
inline void store_f16(uint16_t* p, Vec a) {
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), _mm512_cvtps_ph(a.v, _MM_FROUND_TO_NEAREST_INT));
}
inline void store_f16_first(uint16_t* p, Vec a, int64_t count) {
  _mm256_mask_storeu_epi16(p, first(count), _mm512_cvtps_ph(a.v, _MM_FROUND_TO_NEAREST_INT));
}
// Integers of 8 bits; and 4 bits of each byte from `shift` on, each 8 more than it means. Always 16 bytes.
inline Vec load_int8(const uint8_t* p) {
  return {_mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p))))};
}
inline Vec load_int4(const uint8_t* p, int shift) {
  const __m512i bytes = _mm512_cvtepu8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)));
  const __m512 meant = _mm512_setr_ps(-8, -7, -6, -5, -4, -3, -2, -1, 0, 1, 2, 3, 4, 5, 6, 7);
  return {_mm512_permutexvar_ps(_mm512_srl_epi32(bytes, _mm_cvtsi32_si128(shift)), meant)};  // looks at 4 bits
}
// Of integral values in -128 .. 127.
inline void store_int8(uint8_t* p, Vec a) {
  _mm_storeu_si128(reinterpret_cast<__m128i*>(p), _mm512_cvtepi32_epi8(_mm512_cvtps_epi32(a.v)));
}
inline Vec load_bf16(const uint16_t* p) {
  const __m256i halves = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p));
  return {_mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(halves), 16))};
}

inline Vec load_e8m0(const uint8_t* p) { return {powers_of_two(p)}; }

// Stored codes: four bytes for each row.
struct Quad {
  __m512i v;
};

inline Quad load_quad(const uint8_t* p) { return {_mm512_loadu_si512(p)}; }
inline Quad shift_right(Quad a, unsigned bits) { return {_mm512_srli_epi32(a.v, bits)}; }
inline Quad shift_left(Quad a, unsigned bits) { return {_mm512_slli_epi32(a.v, bits)}; }
inline Quad operator&(Quad a, uint32_t mask) {
  return {_mm512_and_si512(a.v, _mm512_set1_epi32(static_cast<int>(mask)))};
}
inline Quad operator|(Quad a, Quad b) { return {_mm512_or_si512(a.v, b.v)}; }
// On each 16 bits by itself.
inline Quad subtract16(Quad a, Quad b) { return {_mm512_sub_epi16(a.v, b.v)}; }
inline Quad multiply16(Quad a, int16_t b) { return {_mm512_mullo_epi16(a.v, _mm512_set1_epi16(b))}; }
inline Quad shift_right16(Quad a, unsigned bits) { return {_mm512_srli_epi16(a.v, bits)}; }

// Of each row: the 32 bits as an integer; as a float; the low 16 bits as a half.
inline Vec from_integers(Quad a) { return {_mm512_cvtepi32_ps(a.v)}; }
inline Vec from_bits(Quad a) { return {_mm512_castsi512_ps(a.v)}; }
inline Vec from_low_half(Quad a) { return {_mm512_cvtph_ps(_mm512_cvtepi32_epi16(a.v))}; }

// 16 numbers, looked up by each row's integer below 16.
struct Table {
  __m512 numbers;
  explicit Table(const float* p) : numbers(_mm512_loadu_ps(p)) {}
};
inline Vec look_up(const Table& table, Quad at) { return {_mm512_permutexvar_ps(at.v, table.numbers)}; }

// The same lanes in double precision.
struct Wide {
  __m512d low, high;
};

inline Wide widen(Vec a) {
  return {_mm512_cvtps_pd(_mm512_castps512_ps256(a.v)), _mm512_cvtps_pd(_mm512_extractf32x8_ps(a.v, 1))};
}
inline Wide wide(double x) { return {_mm512_set1_pd(x), _mm512_set1_pd(x)}; }
inline Wide operator+(Wide a, Wide b) { return {_mm512_add_pd(a.low, b.low), _mm512_add_pd(a.high, b.high)}; }
inline Wide operator-(Wide a, Wide b) { return {_mm512_sub_pd(a.low, b.low), _mm512_sub_pd(a.high, b.high)}; }
inline Wide fma(Wide a, Wide b, Wide c) {
  return {_mm512_fmadd_pd(a.low, b.low, c.low), _mm512_fmadd_pd(a.high, b.high, c.high)};
}
// a where b is not zero, else 0.
inline Wide where_nonzero(Wide a, Wide b) {
  const __m512d zero = _mm512_setzero_pd();
  return {_mm512_maskz_mov_pd(_mm512_cmp_pd_mask(b.low, zero, _CMP_NEQ_UQ), a.low),
          _mm512_maskz_mov_pd(_mm512_cmp_pd_mask(b.high, zero, _CMP_NEQ_UQ), a.high)};
}
inline double sum(Wide a) { return _mm512_reduce_add_pd(_mm512_add_pd(a.low, a.high)); }

}  // namespace
}  // namespace scrimp::avx512
