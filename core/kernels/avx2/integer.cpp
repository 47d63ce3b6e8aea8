#include <immintrin.h>
#include <string.h>

#include "kernels/avx2/isa.h"

namespace scrimp::avx2 {
namespace {

struct Sixteen {
  __m256i low, high;
};

inline Sixteen zeros() { return {_mm256_setzero_si256(), _mm256_setzero_si256()}; }

inline Sixteen load(const void* from) {
  const auto* at = static_cast<const __m256i*>(from);
  return {_mm256_loadu_si256(at), _mm256_loadu_si256(at + 1)};
}

inline void store(int32_t* to, Sixteen v) {
  auto* at = reinterpret_cast<__m256i*>(to);
  _mm256_storeu_si256(at, v.low);
  _mm256_storeu_si256(at + 1, v.high);
}

inline Sixteen add(Sixteen a, Sixteen b) { return {_mm256_add_epi32(a.low, b.low), _mm256_add_epi32(a.high, b.high)}; }

// total + both products of the pair at `inputs` and of each pair of w
inline Sixteen add_products(Sixteen total, Sixteen w, const int16_t* inputs) {
  int32_t pair;
  memcpy(&pair, inputs, sizeof pair);
  const __m256i x = _mm256_set1_epi32(pair);
  return add(total, {_mm256_madd_epi16(w.low, x), _mm256_madd_epi16(w.high, x)});
}

inline Sixteen multiply(Sixteen a, Sixteen b) {
  return {_mm256_mullo_epi32(a.low, b.low), _mm256_mullo_epi32(a.high, b.high)};
}

inline Sixteen shift_right(Sixteen v, int32_t bits) {
  const __m128i count = _mm_cvtsi32_si128(bits);
  return {_mm256_sra_epi32(v.low, count), _mm256_sra_epi32(v.high, count)};
}

inline Sixteen clamp(Sixteen v, int32_t low, int32_t high) {
  const __m256i least = _mm256_set1_epi32(low), most = _mm256_set1_epi32(high);
  return {_mm256_min_epi32(_mm256_max_epi32(v.low, least), most),
          _mm256_min_epi32(_mm256_max_epi32(v.high, least), most)};
}

#include "kernels/simd/integer.inl"

}  // namespace

void integer_product(const IntegerProduct& p) { integer_product_body(p); }

void requantize(int32_t* sums, int64_t rows, const Requantizer& by) { requantize_body(sums, rows, by); }

}  // namespace scrimp::avx2
