// What the texts in ../simd need to multiply integer codes. How four codes are multiplied by four activations differs
// between processors; see linear_int8.cpp (vpmaddubsw) and linear_int8_vnni.inl (vpdpbusd).
#pragma once

#include "kernels/avx2/isa.h"
#include "kernels/avx2/powers.h"
#include "kernels/avx2/unpack.h"

namespace scrimp::avx2 {
namespace {

using FloatReg = __m256;
using IntReg = __m256i;
using FourQuads = const int8_t*;  // of activations: the broadcast of one comes from memory
constexpr int64_t kRegRows = 8;
constexpr int64_t kAheadBytes = 2048;  // as in ../avx512/linear_int8_decode.h

SCRIMP_INLINE FloatReg zero() { return _mm256_setzero_ps(); }
SCRIMP_INLINE FloatReg all_rows(float a) { return _mm256_set1_ps(a); }
SCRIMP_INLINE FloatReg times(FloatReg a, float b) { return _mm256_mul_ps(a, all_rows(b)); }
SCRIMP_INLINE FloatReg to_float(IntReg a) { return _mm256_cvtepi32_ps(a); }
SCRIMP_INLINE FloatReg fma(FloatReg sum, FloatReg a, FloatReg b) { return _mm256_fmadd_ps(a, b, sum); }
SCRIMP_INLINE FloatReg fma(FloatReg sum, FloatReg a, float b) { return fma(sum, a, all_rows(b)); }
SCRIMP_INLINE FourQuads four_quads(const int8_t* x) { return x; }
// Four activations for 8 rows.
SCRIMP_INLINE __m256i broadcast(const int8_t* quad) { return _mm256_broadcastd_epi32(_mm_loadu_si32(quad)); }

SCRIMP_INLINE FloatReg load_scale_reg(const void* plane, ScaleType type, int64_t at) {
  if (type == ScaleType::kF32) return _mm256_loadu_ps(static_cast<const float*>(plane) + at);
  if (type == ScaleType::kE8m0) return powers_of_two(static_cast<const uint8_t*>(plane) + at);
  const __m128i stored = _mm_loadu_si128(reinterpret_cast<const __m128i*>(static_cast<const uint16_t*>(plane) + at));
  if (type == ScaleType::kF16) return _mm256_cvtph_ps(stored);
  return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(stored), 16));
}

inline FloatReg load_rows(const float* y, int64_t count) {
  if (count >= kRegRows) return _mm256_loadu_ps(y);
  alignas(32) float rows[kRegRows] = {};
  for (int64_t i = 0; i < count; ++i) rows[i] = y[i];
  return _mm256_load_ps(rows);
}

inline void store_rows(float* y, int64_t count, FloatReg values) {
  if (count >= kRegRows) return _mm256_storeu_ps(y, values);
  alignas(32) float rows[kRegRows];
  _mm256_store_ps(rows, values);
  for (int64_t i = 0; i < count; ++i) y[i] = rows[i];
}

}  // namespace

#include "kernels/simd/linear_int8.inl"

}  // namespace scrimp::avx2
