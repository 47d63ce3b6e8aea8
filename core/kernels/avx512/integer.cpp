#include <string.h>

#include "kernels/avx512/intrinsics.h"
#include "kernels/avx512/isa.h"

namespace scrimp::avx512 {
namespace {

using Sixteen = __m512i;

inline Sixteen zeros() { return _mm512_setzero_si512(); }
inline Sixteen load(const void* from) { return _mm512_loadu_si512(from); }
inline void store(int32_t* to, Sixteen v) { _mm512_storeu_si512(to, v); }
inline Sixteen add(Sixteen a, Sixteen b) { return _mm512_add_epi32(a, b); }

// total + both products of the pair at `inputs` and of each pair of w
inline Sixteen add_products(Sixteen total, Sixteen w, const int16_t* inputs) {
  int32_t pair;
  memcpy(&pair, inputs, sizeof pair);
  return _mm512_dpwssd_epi32(total, w, _mm512_set1_epi32(pair));
}

inline Sixteen multiply(Sixteen a, Sixteen b) { return _mm512_mullo_epi32(a, b); }

inline Sixteen shift_right(Sixteen v, int32_t bits) { return _mm512_sra_epi32(v, _mm_cvtsi32_si128(bits)); }

inline Sixteen clamp(Sixteen v, int32_t low, int32_t high) {
  return _mm512_min_epi32(_mm512_max_epi32(v, _mm512_set1_epi32(low)), _mm512_set1_epi32(high));
}

#include "kernels/simd/integer.inl"

}  // namespace

void integer_product(const IntegerProduct& p) { integer_product_body(p); }

void requantize(int32_t* sums, int64_t rows, const Requantizer& by) { requantize_body(sums, rows, by); }

}  // namespace scrimp::avx512
