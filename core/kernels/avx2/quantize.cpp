// Quantizing activations to int8 with AVX2.
#include <immintrin.h>

#include "kernels/avx2/isa.h"

namespace scrimp::avx2 {
namespace {

// Up to 8 floats at x; zeros for those missing.
__m256 load(const float* x, int64_t left) {
  if (left >= 8) return _mm256_loadu_ps(x);
  const __m256i lane = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
  return _mm256_maskload_ps(x, _mm256_cmpgt_epi32(_mm256_set1_epi32(static_cast<int>(left)), lane));
}

// The largest |x| of n floats, compared as unsigned integers: these order like the floats, with infinity and then NaN
// on top.
float largest_magnitude(const float* x, int64_t n) {
  const __m256i magnitude = _mm256_set1_epi32(0x7FFFFFFF);
  __m256i largest = _mm256_setzero_si256();
  for (int64_t k = 0; k < n; k += 8) {
    const __m256i bits = _mm256_castps_si256(load(x + k, n - k));
    largest = _mm256_max_epu32(largest, _mm256_and_si256(bits, magnitude));
  }
  __m128i four = _mm_max_epu32(_mm256_castsi256_si128(largest), _mm256_extracti128_si256(largest, 1));
  four = _mm_max_epu32(four, _mm_shuffle_epi32(four, 0x4E));
  four = _mm_max_epu32(four, _mm_shuffle_epi32(four, 0xB1));
  return _mm_cvtss_f32(_mm_castsi128_ps(four));
}

// n floats -> codes, quads `stride` bytes apart; returns their sum.
int32_t store_codes(const float* x, int64_t n, float scale, int8_t* out, int64_t stride) {
  const __m256 divisor = _mm256_set1_ps(scale);
  const __m256 limit = _mm256_set1_ps(127.0f);
  const __m256 minus_limit = _mm256_set1_ps(-127.0f);
  __m256i sum = _mm256_setzero_si256();
  for (int64_t k = 0; k < n; k += 8) {
    const __m256 ratio = _mm256_div_ps(load(x + k, n - k), divisor);
    // limited as floats: beyond 2^31 the conversion would change the sign
    const __m256i code = _mm256_cvtps_epi32(_mm256_max_ps(_mm256_min_ps(ratio, limit), minus_limit));
    sum = _mm256_add_epi32(sum, code);
    const __m256i words = _mm256_packs_epi32(code, code);  // each half: its 4 codes twice
    const __m256i bytes = _mm256_packs_epi16(words, words);
    _mm_storeu_si32(out + k / 4 * stride, _mm256_castsi256_si128(bytes));
    if (n - k > 4) _mm_storeu_si32(out + (k / 4 + 1) * stride, _mm256_extracti128_si256(bytes, 1));
  }
  __m128i four = _mm_add_epi32(_mm256_castsi256_si128(sum), _mm256_extracti128_si256(sum, 1));
  four = _mm_add_epi32(four, _mm_shuffle_epi32(four, 0x4E));
  four = _mm_add_epi32(four, _mm_shuffle_epi32(four, 0xB1));
  return _mm_cvtsi128_si32(four);
}

void store_zeros(int8_t* out, int64_t stride, int64_t quads) {
  for (int64_t i = 0; i < quads; ++i) _mm_storeu_si32(out + i * stride, _mm_setzero_si128());
}

}  // namespace

#include "kernels/simd/quantize.inl"

#include "kernels/simd/quantize_tokens.inl"

}  // namespace scrimp::avx2
