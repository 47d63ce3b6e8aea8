// The ceilings of this instruction set that are known: reading, and fmla. Nobody measured its integer products yet.
#include <arm_neon.h>

#include "kernels/neon/isa.h"

namespace scrimp::neon {

uint64_t read(const uint8_t* from, int64_t bytes) {
  uint8x16_t all[8] = {};
  for (const uint8_t* const end = from + bytes; from < end; from += 128) {
#pragma GCC unroll 8
    for (int i = 0; i < 8; ++i) all[i] = veorq_u8(all[i], vld1q_u8(from + 16 * i));
  }
  for (int i = 1; i < 8; ++i) all[0] = veorq_u8(all[0], all[i]);
  const uint64x2_t words = vreinterpretq_u64_u8(all[0]);
  return vgetq_lane_u64(words, 0) ^ vgetq_lane_u64(words, 1);
}

// 16 sums of 4 lanes, sixteen times: four a cycle with a latency of four.
int64_t f32_peak(int64_t rounds) {
  static_assert(16 * 16 * 4 == kPeakOps);
  float32x4_t sums[16] = {};
  const float32x4_t w = vdupq_n_f32(0.5F), x = vdupq_n_f32(0.25F);
  for (int64_t i = 0; i < 16 * rounds; ++i) {
#pragma GCC unroll 16
    for (int n = 0; n < 16; ++n) asm("fmla %0.4s, %1.4s, %2.4s" : "+w"(sums[n]) : "w"(w), "w"(x));
  }
  uint32x4_t all = vdupq_n_u32(0);
  for (const float32x4_t& sum : sums) all = veorq_u32(all, vreinterpretq_u32_f32(sum));
  return static_cast<int64_t>(vaddvq_u32(all));
}

}  // namespace scrimp::neon
