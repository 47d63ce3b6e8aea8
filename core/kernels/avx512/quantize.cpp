// Quantizing activations to int8 with AVX-512.
#include "kernels/avx512/intrinsics.h"
#include "kernels/avx512/isa.h"

namespace scrimp::avx512 {
namespace {

__mmask16 lanes(int64_t left) { return static_cast<__mmask16>(left >= 16 ? 0xFFFF : (1 << left) - 1); }

// Below, whole vectors first: a mask for every load, and sixteen lanes reduced as such, take a quarter longer.

// The largest |x| of n floats, compared as unsigned integers: these order like the floats, with infinity and then NaN
// on top.
float largest_magnitude(const float* x, int64_t n) {
  const __m512i magnitude = _mm512_set1_epi32(0x7FFFFFFF);
  __m512i largest = _mm512_setzero_si512();
  int64_t k = 0;
  for (; k + 16 <= n; k += 16) {
    largest = _mm512_max_epu32(largest, _mm512_and_si512(_mm512_loadu_si512(x + k), magnitude));
  }
  if (k < n) {
    const __m512i rest = _mm512_maskz_loadu_epi32(lanes(n - k), x + k);
    largest = _mm512_max_epu32(largest, _mm512_and_si512(rest, magnitude));
  }
  __m256i eight = _mm256_max_epu32(_mm512_castsi512_si256(largest), _mm512_extracti64x4_epi64(largest, 1));
  __m128i four = _mm_max_epu32(_mm256_castsi256_si128(eight), _mm256_extracti128_si256(eight, 1));
  four = _mm_max_epu32(four, _mm_shuffle_epi32(four, 0x4E));
  four = _mm_max_epu32(four, _mm_shuffle_epi32(four, 0xB1));
  return _mm_cvtss_f32(_mm_castsi128_ps(four));
}

// Up to four quads of one token, `stride` bytes apart.
inline void store_quads(int8_t* out, int64_t stride, int64_t quads, __m512i codes) {
  const __m128i bytes = _mm512_cvtepi32_epi8(codes);
  if (quads >= 4 && stride == 4) {
    _mm_storeu_si128(reinterpret_cast<__m128i*>(out), bytes);
    return;
  }
  _mm_storeu_si32(out, bytes);
  if (quads > 1) _mm_storeu_si32(out + stride, _mm_bsrli_si128(bytes, 4));
  if (quads > 2) _mm_storeu_si32(out + 2 * stride, _mm_bsrli_si128(bytes, 8));
  if (quads > 3) _mm_storeu_si32(out + 3 * stride, _mm_bsrli_si128(bytes, 12));
}

// n floats -> codes; returns their sum.
int32_t store_codes(const float* x, int64_t n, float scale, int8_t* out, int64_t stride) {
  const __m512 divisor = _mm512_set1_ps(scale);
  const __m512 limit = _mm512_set1_ps(127.0f);
  const __m512 minus_limit = _mm512_set1_ps(-127.0f);
  // limited as floats: beyond 2^31 the conversion would change the sign
  const auto codes_of = [&](__m512 numbers) __attribute__((always_inline)) {
    return _mm512_cvtps_epi32(_mm512_max_ps(_mm512_min_ps(_mm512_div_ps(numbers, divisor), limit), minus_limit));
  };
  __m512i sum = _mm512_setzero_si512();
  int64_t k = 0;
  for (; k + 16 <= n; k += 16) {
    const __m512i codes = codes_of(_mm512_loadu_ps(x + k));
    sum = _mm512_add_epi32(sum, codes);
    store_quads(out + k / 4 * stride, stride, 4, codes);
  }
  if (k < n) {
    const __m512i codes = codes_of(_mm512_maskz_loadu_ps(lanes(n - k), x + k));
    sum = _mm512_add_epi32(sum, codes);
    store_quads(out + k / 4 * stride, stride, (n - k + 3) / 4, codes);
  }
  return _mm512_reduce_add_epi32(sum);
}

void store_zeros(int8_t* out, int64_t stride, int64_t quads) {
  for (int64_t i = 0; i < quads; ++i) _mm_storeu_si32(out + i * stride, _mm_setzero_si128());
}

}  // namespace

#include "kernels/simd/quantize.inl"

}  // namespace scrimp::avx512
