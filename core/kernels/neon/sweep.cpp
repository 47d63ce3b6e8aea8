#include <string.h>

#include "kernels/neon/isa.h"
#include "kernels/neon/vec.h"

namespace scrimp::neon {
namespace {
#include "kernels/simd/product.inl"

#include "kernels/simd/sweep.inl"
}  // namespace

void weighted_sums(const Rounding& rounding, const float* w, int64_t w_stride, const float* importance, int64_t inputs,
                   int64_t blocks, const float* scales, const float* divisors, const float* lows, float* sums) {
  weighted_sums_body(rounding, w, w_stride, importance, inputs, blocks, scales, divisors, lows, sums);
}

void sweep(const Sweep& sweep, int64_t strip_begin, int64_t strip_end) {
  for (int64_t strip = strip_begin; strip < strip_end; ++strip) sweep_strip(sweep, strip);
}

}  // namespace scrimp::neon
