// Scales that are powers of two (OCP's E8M0). Internal linkage, as vec.h.
#pragma once

#include <immintrin.h>
#include <stdint.h>

namespace scrimp::avx2 {
namespace {

// 2^(byte - 127) of 8 bytes: a byte is the exponent of a float, but that 0 is half the smallest normal one and 255 NaN.
inline __m256 powers_of_two(const uint8_t* p) {
  const __m256i bytes = _mm256_cvtepu8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(p)));
  const __m256i half = _mm256_set1_epi32(0x00400000);
  const __m256i bits = _mm256_max_epi32(_mm256_slli_epi32(bytes, 23), half);
  const __m256i nan = _mm256_cmpeq_epi32(bytes, _mm256_set1_epi32(255));
  return _mm256_castsi256_ps(_mm256_or_si256(bits, _mm256_and_si256(nan, half)));
}

}  // namespace
}  // namespace scrimp::avx2
