// What the texts in ../simd need to multiply integer codes. How four codes are multiplied by four activations differs
// between processors; see linear_int8.cpp (no dot product), linear_int8_dotprod.cpp and linear_int8_i8mm.cpp.
#pragma once

#include "kernels/neon/isa.h"
#include "kernels/neon/powers.h"
#include "kernels/neon/unpack.h"

namespace scrimp::neon {
namespace {

using FloatReg = float32x4_t;
using IntReg = int32x4_t;
using FourQuads = int8x16_t;  // of activations
constexpr int64_t kRegRows = 4;
constexpr int64_t kAheadBytes = 0;  // not measured on such a processor

SCRIMP_INLINE FloatReg zero() { return vdupq_n_f32(0.0F); }
SCRIMP_INLINE FloatReg all_rows(float a) { return vdupq_n_f32(a); }
SCRIMP_INLINE FloatReg times(FloatReg a, float b) { return vmulq_n_f32(a, b); }
SCRIMP_INLINE FloatReg to_float(IntReg a) { return vcvtq_f32_s32(a); }
SCRIMP_INLINE FloatReg fma(FloatReg sum, FloatReg a, FloatReg b) { return vfmaq_f32(sum, a, b); }
SCRIMP_INLINE FloatReg fma(FloatReg sum, FloatReg a, float b) { return vfmaq_n_f32(sum, a, b); }
SCRIMP_INLINE FourQuads four_quads(const int8_t* x) { return vld1q_s8(x); }
SCRIMP_INLINE void store(uint8_t* p, uint8x16_t codes) { vst1q_u8(p, codes); }
SCRIMP_INLINE uint8x16_t load_reg(const uint8_t* p) { return vld1q_u8(p); }

SCRIMP_INLINE FloatReg load_scale_reg(const void* plane, ScaleType type, int64_t at) {
  if (type == ScaleType::kF32) return vld1q_f32(static_cast<const float*>(plane) + at);
  if (type == ScaleType::kE8m0) return powers_of_two(static_cast<const uint8_t*>(plane) + at);
  const uint16x4_t stored = vld1_u16(static_cast<const uint16_t*>(plane) + at);
  if (type == ScaleType::kF16) return vcvt_f32_f16(vreinterpret_f16_u16(stored));
  return vreinterpretq_f32_u32(vshll_n_u16(stored, 16));
}

inline FloatReg load_rows(const float* y, int64_t count) {
  if (count >= kRegRows) return vld1q_f32(y);
  float rows[kRegRows] = {};
  for (int64_t i = 0; i < count; ++i) rows[i] = y[i];
  return vld1q_f32(rows);
}

inline void store_rows(float* y, int64_t count, FloatReg values) {
  if (count >= kRegRows) return vst1q_f32(y, values);
  float rows[kRegRows];
  vst1q_f32(rows, values);
  for (int64_t i = 0; i < count; ++i) y[i] = rows[i];
}

}  // namespace

#include "kernels/simd/linear_int8.inl"

}  // namespace scrimp::neon
