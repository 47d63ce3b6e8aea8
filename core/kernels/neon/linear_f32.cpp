#include "kernels/neon/isa.h"
#include "kernels/neon/vec.h"

namespace scrimp::neon {
namespace {
#include "kernels/simd/product.inl"

#include "kernels/simd/decode.inl"

#include "kernels/simd/linear_f32.inl"
}  // namespace

void linear_f32(const Matrix& w, const float* x, int64_t x_stride, int64_t tokens, int64_t tile_begin, int64_t tile_end,
                float* y, int64_t y_stride, uint8_t* scratch) {
  linear_f32_body(w, x, x_stride, tokens, tile_begin, tile_end, y, y_stride, reinterpret_cast<float*>(scratch));
}

}  // namespace scrimp::neon
