#include "kernels/neon/isa.h"
#include "kernels/neon/vec.h"

namespace scrimp::neon {
namespace {
#include "kernels/simd/exp.inl"

#include "kernels/simd/curves.inl"

#include "kernels/simd/product.inl"

#include "kernels/simd/cache.inl"

#include "kernels/simd/attention.inl"
}  // namespace

void attention(const Attention& a, int64_t head_begin, int64_t head_end, int64_t token_begin, int64_t token_end,
               uint8_t* scratch) {
  attention_body(a, head_begin, head_end, token_begin, token_end, scratch);
}

void to_codes(const float* x, int64_t n, CacheType type, int64_t block, uint8_t* codes, uint16_t* scales,
              int64_t scale_stride) {
  to_codes_body(x, n, type, block, codes, scales, scale_stride);
}

}  // namespace scrimp::neon
