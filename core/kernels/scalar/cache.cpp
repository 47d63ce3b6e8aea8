#include <math.h>

#include "kernels/scalar/half.h"
#include "kernels/scalar/isa.h"

namespace scrimp::scalar {
namespace {

// f16(max|x| / limit); NaN where a number is not finite.
uint16_t scale_of(const float* x, int64_t n, float limit) {
  float largest = 0.0F;
  for (int64_t k = 0; k < n; ++k) {
    if (!isfinite(x[k])) return float_to_f16(NAN);
    if (::fabsf(x[k]) > largest) largest = ::fabsf(x[k]);
  }
  return float_to_f16(largest / limit);
}

int32_t code_of(float x, float scale, float limit) {
  if (!(scale > 0.0F && isfinite(scale))) return 0;
  const float code = ::nearbyintf(x / scale);
  return static_cast<int32_t>(code > limit ? limit : code < -limit ? -limit : code);
}

}  // namespace

void to_codes(const float* x, int64_t n, CacheType type, int64_t block, uint8_t* codes, uint16_t* scales,
              int64_t scale_stride) {
  const bool bytes = type == CacheType::kInt8;
  const float limit = bytes ? 127.0F : 7.0F;
  for (int64_t begin = 0; begin < n; begin += block) {
    const int64_t end = n - begin < block ? n : begin + block;
    *scales = scale_of(x + begin, end - begin, limit);
    const float scale = f16_to_float(*scales);
    scales += scale_stride;
    for (int64_t k = begin; k < end; ++k) {
      const int32_t code = code_of(x[k], scale, limit);
      if (bytes) {
        codes[k] = static_cast<uint8_t>(code);
        continue;
      }
      uint8_t& pair = codes[k / 32 * 16 + k % 16];
      pair = static_cast<uint8_t>(k % 32 < 16 ? code + 8 : pair | (code + 8) << 4);
    }
  }
}

}  // namespace scrimp::scalar
