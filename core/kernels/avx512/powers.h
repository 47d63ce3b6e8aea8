// Scales that are powers of two (OCP's E8M0). Internal linkage, as vec.h.
#pragma once

#include "kernels/avx512/intrinsics.h"
#include <stdint.h>

namespace scrimp::avx512 {
namespace {

// 2^(byte - 127) of 16 bytes: a byte is the exponent of a float, but that 0 is half the smallest normal one and 255
// NaN.
inline __m512 powers_of_two(const uint8_t* p) {
  const __m512i bytes = _mm512_cvtepu8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)));
  const __m512i half = _mm512_set1_epi32(0x00400000);
  const __m512i bits = _mm512_max_epi32(_mm512_slli_epi32(bytes, 23), half);
  const __mmask16 nan = _mm512_cmpeq_epi32_mask(bytes, _mm512_set1_epi32(255));
  return _mm512_castsi512_ps(_mm512_mask_or_epi32(bits, nan, bits, half));
}

}  // namespace
}  // namespace scrimp::avx512
