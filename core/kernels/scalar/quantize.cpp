// Quantizing activations to int8, the obvious way.
#include <cmath>

#include "kernels/scalar/isa.h"

namespace scrimp::scalar {
namespace {

// NaN where one is.
float largest_magnitude(const float* x, int64_t n) {
  float largest = 0.0f;
  for (int64_t k = 0; k < n; ++k) {
    const float size = std::fabs(x[k]);
    if (!(size <= largest)) largest = size;
    if (std::isnan(largest)) break;
  }
  return largest;
}

}  // namespace

// q = round-to-nearest-even(x / scale), scale = max|x| / 127, over consecutive inputs of one token.
//
// Shapes: x [T][stride] floats -> quads [K_padded/4][w][4], scales and sums [blocks][w] per block of w <= 12 tokens.
// Error: |x - scale*q| <= scale/2 (1 + 2^-22), except where scale is denormal: there |q| is clamped to 127.
// Edge cases: an all-zero block, and one so small that its scale rounds to zero, give scale 0 and q 0. A block holding
// a NaN or an infinity keeps that as its scale, with q 0, so that every product with it is NaN and none hides it; so it
// does where the scale is fixed.
void quantize(const float* x, int64_t stride, int64_t block_begin, int64_t block_end, const Activations& a) {
  for (int64_t block = block_begin; block < block_end; ++block) {
    const int64_t first = block * kTokenBlock;
    const int64_t width = a.tokens - first < kTokenBlock ? a.tokens - first : kTokenBlock;
    int8_t* quads = a.quads + first * a.cols_padded;
    for (int64_t t = 0; t < width; ++t) {
      const float* row = x + (first + t) * stride;
      float scale = 0.0f;
      for (int64_t i = 0; i < a.blocks; ++i) {
        const int64_t begin = i * a.block;
        const int64_t end = a.cols - begin < a.block ? a.cols : begin + a.block;
        if (begin % a.scale_block == 0) {
          const int64_t n = a.cols - begin < a.scale_block ? a.cols - begin : a.scale_block;
          const float largest = largest_magnitude(row + begin, n);
          scale = a.fixed_scale > 0.0f && std::isfinite(largest) ? a.fixed_scale : largest / 127.0f;
        }
        const bool usable = scale > 0.0f && std::isfinite(scale);
        int32_t sum = 0;
        for (int64_t k = begin; k < end; ++k) {
          float code = usable ? std::nearbyintf(row[k] / scale) : 0.0f;
          if (code > 127.0f) code = 127.0f;
          if (code < -127.0f) code = -127.0f;
          quads[((k / 4) * width + t) * 4 + k % 4] = static_cast<int8_t>(code);
          sum += static_cast<int32_t>(code);
        }
        a.scales[first * a.blocks + i * width + t] = scale;
        a.sums[first * a.blocks + i * width + t] = sum;
      }
      for (int64_t k = a.cols; k < a.cols_padded; ++k) quads[((k / 4) * width + t) * 4 + k % 4] = 0;
    }
  }
}

}  // namespace scrimp::scalar
