// One vector of floats for Advanced SIMD: 4 lanes, a quarter of the rows of a tile. The texts in ../simd are written
// over it. Everything here has internal linkage, as in the other folders.
#pragma once

#include <arm_neon.h>
#include <stdint.h>

#include "kernels/neon/powers.h"

namespace scrimp::neon {
namespace {

constexpr int64_t kLanes = 4;
constexpr int kProductVecs = 4;        // register block of ../simd/product.inl: 4 x 6 sums, 4 weights, 1 activation
constexpr int kProductTokens = 6;      // of 32 registers
constexpr int kProductFew = 2;         // up to which 4 vectors are taken
constexpr int64_t kStoredTokens = 12;  // above, weights of 16 bits are widened once for all tokens

struct Vec {
  float32x4_t v;
};

// All bits of lanes 0 .. count-1, 0 <= count <= 4.
inline uint32x4_t first(int64_t count) {
  static constexpr uint32_t kLane[4] = {0, 1, 2, 3};
  return vcltq_u32(vld1q_u32(kLane), vdupq_n_u32(static_cast<uint32_t>(count)));
}

inline Vec load(const float* p) { return {vld1q_f32(p)}; }
inline Vec broadcast(float x) { return {vdupq_n_f32(x)}; }
inline Vec load_first(const float* p, int64_t count, Vec other) {
  float32x4_t v = other.v;
  if (count > 0) v = vld1q_lane_f32(p, v, 0);
  if (count > 1) v = vld1q_lane_f32(p + 1, v, 1);
  if (count > 2) v = vld1q_lane_f32(p + 2, v, 2);
  if (count > 3) v = vld1q_lane_f32(p + 3, v, 3);
  return {v};
}
inline void store(float* p, Vec a) { vst1q_f32(p, a.v); }
inline void store_first(float* p, Vec a, int64_t count) {
  if (count > 0) vst1q_lane_f32(p, a.v, 0);
  if (count > 1) vst1q_lane_f32(p + 1, a.v, 1);
  if (count > 2) vst1q_lane_f32(p + 2, a.v, 2);
  if (count > 3) vst1q_lane_f32(p + 3, a.v, 3);
}
inline Vec keep_first(Vec a, int64_t count) {
  return {vreinterpretq_f32_u32(vandq_u32(vreinterpretq_u32_f32(a.v), first(count)))};
}

inline Vec operator+(Vec a, Vec b) { return {vaddq_f32(a.v, b.v)}; }
inline Vec operator-(Vec a, Vec b) { return {vsubq_f32(a.v, b.v)}; }
inline Vec operator*(Vec a, Vec b) { return {vmulq_f32(a.v, b.v)}; }
inline Vec operator/(Vec a, Vec b) { return {vdivq_f32(a.v, b.v)}; }
inline Vec fma(Vec a, Vec b, Vec c) { return {vfmaq_f32(c.v, a.v, b.v)}; }

// The larger; b where either is NaN (fmax would give NaN, fmaxnm the other one).
inline Vec max(Vec a, Vec b) { return {vbslq_f32(vcgtq_f32(a.v, b.v), a.v, b.v)}; }
inline Vec min(Vec a, Vec b) { return {vbslq_f32(vcltq_f32(a.v, b.v), a.v, b.v)}; }
inline float sum(Vec a) {
  const float32x2_t pairs = vadd_f32(vget_low_f32(a.v), vget_high_f32(a.v));
  return vget_lane_f32(vpadd_f32(pairs, pairs), 0);
}
inline float largest(Vec a) { return vmaxvq_f32(a.v); }
inline bool any_above(Vec a, Vec b) { return vmaxvq_u32(vcgtq_f32(a.v, b.v)) != 0; }
inline bool any_equal(Vec a, Vec b) { return vmaxvq_u32(vceqq_f32(a.v, b.v)) != 0; }

inline Vec round_even(Vec a) { return {vrndnq_f32(a.v)}; }
// a * 2^n for integral n, |n| < 250: by two powers, since one alone could overflow where the result does not.
inline Vec scale_by_power(Vec a, Vec n) {
  const int32x4_t bias = vdupq_n_s32(127);
  const int32x4_t whole = vcvtnq_s32_f32(n.v);
  const int32x4_t half = vshrq_n_s32(whole, 1);
  const int32x4_t rest = vsubq_s32(whole, half);
  const float32x4_t first_power = vreinterpretq_f32_s32(vshlq_n_s32(vaddq_s32(half, bias), 23));
  const float32x4_t second_power = vreinterpretq_f32_s32(vshlq_n_s32(vaddq_s32(rest, bias), 23));
  return {vmulq_f32(vmulq_f32(a.v, first_power), second_power)};
}

inline Vec load_f16(const uint16_t* p) { return {vcvt_f32_f16(vreinterpret_f16_u16(vld1_u16(p)))}; }
inline Vec load_f16_first(const uint16_t* p, int64_t count) {
  uint16_t halves[4] = {};
  for (int64_t i = 0; i < count; ++i) halves[i] = p[i];
  return load_f16(halves);
}
inline void store_f16(uint16_t* p, Vec a) { vst1_u16(p, vreinterpret_u16_f16(vcvt_f16_f32(a.v))); }
inline void store_f16_first(uint16_t* p, Vec a, int64_t count) {
  uint16_t halves[4];
  store_f16(halves, a);
  for (int64_t i = 0; i < count; ++i) p[i] = halves[i];
}
inline Vec load_bf16(const uint16_t* p) { return {vreinterpretq_f32_u32(vshll_n_u16(vld1_u16(p), 16))}; }

inline Vec load_e8m0(const uint8_t* p) { return {powers_of_two(p)}; }

// Four bytes of each of two places, the second ones above.
inline uint8x8_t load_bytes(const uint8_t* low, const uint8_t* high) {
  uint32_t words[2];
  __builtin_memcpy(words, low, 4);
  __builtin_memcpy(words + 1, high, 4);
  return vcreate_u8(static_cast<uint64_t>(words[1]) << 32 | words[0]);
}
inline Vec from_int16(int16x4_t a) { return {vcvtq_f32_s32(vmovl_s16(a))}; }
// Integers of 8 bits; and 4 bits of each byte from `shift` on, each 8 more than it means. Always 4 bytes.
inline Vec load_int8(const uint8_t* p) {
  return from_int16(vget_low_s16(vmovl_s8(vreinterpret_s8_u8(load_bytes(p, p)))));
}
inline int8x8_t int4_of(uint8x8_t bytes, int shift) {
  const uint8x8_t codes = vand_u8(vshl_u8(bytes, vdup_n_s8(static_cast<int8_t>(-shift))), vdup_n_u8(15));
  return vsub_s8(vreinterpret_s8_u8(codes), vdup_n_s8(8));
}
inline Vec load_int4(const uint8_t* p, int shift) {
  return from_int16(vget_low_s16(vmovl_s8(int4_of(load_bytes(p, p), shift))));
}
// Of integral values in -128 .. 127.
inline void store_int8(uint8_t* p, Vec a) {
  const int16x4_t words = vqmovn_s32(vcvtnq_s32_f32(a.v));
  const int8x8_t bytes = vqmovn_s16(vcombine_s16(words, words));
  const uint32_t four = vget_lane_u32(vreinterpret_u32_s8(bytes), 0);
  __builtin_memcpy(p, &four, 4);
}

// Stored codes: four bytes for each row.
struct Quad {
  uint32x4_t v;
};

inline Quad load_quad(const uint8_t* p) { return {vreinterpretq_u32_u8(vld1q_u8(p))}; }
inline Quad shift_right(Quad a, unsigned bits) { return {a.v >> vdupq_n_u32(bits)}; }
inline Quad shift_left(Quad a, unsigned bits) { return {a.v << vdupq_n_u32(bits)}; }
inline Quad operator&(Quad a, uint32_t mask) { return {vandq_u32(a.v, vdupq_n_u32(mask))}; }
inline Quad operator|(Quad a, Quad b) { return {vorrq_u32(a.v, b.v)}; }
// On each 16 bits by itself.
inline uint16x8_t sixteens(Quad a) { return vreinterpretq_u16_u32(a.v); }
inline Quad subtract16(Quad a, Quad b) { return {vreinterpretq_u32_u16(vsubq_u16(sixteens(a), sixteens(b)))}; }
inline Quad multiply16(Quad a, int16_t b) {
  return {vreinterpretq_u32_u16(vmulq_n_u16(sixteens(a), static_cast<uint16_t>(b)))};
}
inline Quad shift_right16(Quad a, unsigned bits) {
  return {vreinterpretq_u32_u16(sixteens(a) >> vdupq_n_u16(static_cast<uint16_t>(bits)))};
}

// Of each row: the 32 bits as an integer; as a float; the low 16 bits as a half.
inline Vec from_integers(Quad a) { return {vcvtq_f32_s32(vreinterpretq_s32_u32(a.v))}; }
inline Vec from_bits(Quad a) { return {vreinterpretq_f32_u32(a.v)}; }
inline Vec from_low_half(Quad a) { return {vcvt_f32_f16(vreinterpret_f16_u16(vmovn_u32(a.v)))}; }

// 16 numbers, looked up by each row's integer below 16: as bytes.
struct Table {
  uint8x16x4_t bytes;
  explicit Table(const float* p) {
    for (int i = 0; i < 4; ++i) bytes.val[i] = vreinterpretq_u8_f32(vld1q_f32(p + 4 * i));
  }
};
inline Vec look_up(const Table& table, Quad at) {
  const uint32x4_t places = vmlaq_n_u32(vdupq_n_u32(0x03020100u), at.v, 0x04040404u);
  return {vreinterpretq_f32_u8(vqtbl4q_u8(table.bytes, vreinterpretq_u8_u32(places)))};
}

// The same lanes in double precision.
struct Wide {
  float64x2_t low, high;
};

inline Wide widen(Vec a) { return {vcvt_f64_f32(vget_low_f32(a.v)), vcvt_high_f64_f32(a.v)}; }
inline Wide wide(double x) { return {vdupq_n_f64(x), vdupq_n_f64(x)}; }
inline Wide operator+(Wide a, Wide b) { return {vaddq_f64(a.low, b.low), vaddq_f64(a.high, b.high)}; }
inline Wide operator-(Wide a, Wide b) { return {vsubq_f64(a.low, b.low), vsubq_f64(a.high, b.high)}; }
inline Wide fma(Wide a, Wide b, Wide c) { return {vfmaq_f64(c.low, a.low, b.low), vfmaq_f64(c.high, a.high, b.high)}; }
// a where b is not zero, else 0.
inline float64x2_t where_nonzero(float64x2_t a, float64x2_t b) {
  return vreinterpretq_f64_u64(vbicq_u64(vreinterpretq_u64_f64(a), vceqzq_f64(b)));
}
inline Wide where_nonzero(Wide a, Wide b) { return {where_nonzero(a.low, b.low), where_nonzero(a.high, b.high)}; }
inline double sum(Wide a) { return vaddvq_f64(vaddq_f64(a.low, a.high)); }

}  // namespace
}  // namespace scrimp::neon
