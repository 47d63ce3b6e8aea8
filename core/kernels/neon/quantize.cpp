// Quantizing activations to int8 with Advanced SIMD.
#include <arm_neon.h>
#include <string.h>

#include "kernels/neon/isa.h"

namespace scrimp::neon {
namespace {

// Up to 4 floats at x; zeros for those missing.
float32x4_t load(const float* x, int64_t left) {
  if (left >= 4) return vld1q_f32(x);
  float32x4_t v = vdupq_n_f32(0.0f);
  if (left > 0) v = vld1q_lane_f32(x, v, 0);
  if (left > 1) v = vld1q_lane_f32(x + 1, v, 1);
  if (left > 2) v = vld1q_lane_f32(x + 2, v, 2);
  return v;
}

// The largest |x| of n floats, compared as unsigned integers: these order like the floats, with infinity and then NaN
// on top.
float largest_magnitude(const float* x, int64_t n) {
  uint32x4_t largest[2] = {};
  for (int64_t k = 0; k < n; k += 8)
    for (int i = 0; i < 2; ++i) {
      const float32x4_t size = vabsq_f32(load(x + k + 4 * i, n - k - 4 * i));
      largest[i] = vmaxq_u32(largest[i], vreinterpretq_u32_f32(size));
    }
  const uint32_t bits = vmaxvq_u32(vmaxq_u32(largest[0], largest[1]));
  float found;
  memcpy(&found, &bits, sizeof found);
  return found;
}

// n floats -> codes, quads `stride` bytes apart; returns their sum.
int32_t store_codes(const float* x, int64_t n, float scale, int8_t* out, int64_t stride) {
  const float32x4_t divisor = vdupq_n_f32(scale);
  const float32x4_t limit = vdupq_n_f32(127.0f);
  int32x4_t sum = vdupq_n_s32(0);
  for (int64_t k = 0; k < n; k += 4, out += stride) {
    const float32x4_t ratio = vdivq_f32(load(x + k, n - k), divisor);
    const int32x4_t code = vcvtnq_s32_f32(vmaxq_f32(vminq_f32(ratio, limit), vnegq_f32(limit)));
    sum = vaddq_s32(sum, code);
    const int16x4_t words = vmovn_s32(code);
    const int8x8_t bytes = vmovn_s16(vcombine_s16(words, words));
    const int32_t quad = vget_lane_s32(vreinterpret_s32_s8(bytes), 0);
    memcpy(out, &quad, sizeof quad);
  }
  return vaddvq_s32(sum);
}

void store_zeros(int8_t* out, int64_t stride, int64_t quads) {
  for (int64_t i = 0; i < quads; ++i) memset(out + i * stride, 0, 4);
}

}  // namespace

#include "kernels/simd/quantize.inl"

#include "kernels/simd/quantize_tokens.inl"

}  // namespace scrimp::neon
