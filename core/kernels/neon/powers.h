// Scales that are powers of two (OCP's E8M0). Internal linkage, as vec.h.
#pragma once

#include <arm_neon.h>
#include <stdint.h>

namespace scrimp::neon {
namespace {

// 2^(byte - 127) of 4 bytes: a byte is the exponent of a float, but that 0 is half the smallest normal one and 255 NaN.
inline float32x4_t powers_of_two(const uint8_t* p) {
  uint32_t four;
  __builtin_memcpy(&four, p, 4);
  const uint32x4_t bytes = vmovl_u16(vget_low_u16(vmovl_u8(vcreate_u8(four))));
  const uint32x4_t half = vdupq_n_u32(0x00400000u);
  const uint32x4_t nan = vandq_u32(vceqq_u32(bytes, vdupq_n_u32(255)), half);
  return vreinterpretq_f32_u32(vorrq_u32(vmaxq_u32(vshlq_n_u32(bytes, 23), half), nan));
}

}  // namespace
}  // namespace scrimp::neon
