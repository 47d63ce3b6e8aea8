// IEEE binary16, bfloat16 and OCP's powers of two as integers, without any hardware support.
#pragma once

#include <stdint.h>
#include <string.h>

namespace scrimp::scalar {
namespace {

inline float float_of_bits(uint32_t bits) {
  float value;
  memcpy(&value, &bits, sizeof value);
  return value;
}

inline uint32_t bits_of_float(float value) {
  uint32_t bits;
  memcpy(&bits, &value, sizeof bits);
  return bits;
}

inline float bf16_to_float(uint16_t half) { return float_of_bits(static_cast<uint32_t>(half) << 16); }

// 2^(byte - 127), the smallest of them subnormal; 255 is NaN.
inline float e8m0_to_float(uint8_t byte) {
  if (byte == 0u) return float_of_bits(0x400000u);
  return float_of_bits(byte == 255u ? 0x7FC00000u : static_cast<uint32_t>(byte) << 23);
}

// Exact. Signalling NaNs become quiet.
inline float f16_to_float(uint16_t half) {
  const uint32_t sign = static_cast<uint32_t>(half & 0x8000u) << 16;
  const uint32_t exponent = (half >> 10) & 31u;
  const uint32_t fraction = half & 1023u;
  if (exponent == 31u) return float_of_bits(sign | 0x7F800000u | (fraction << 13) | (fraction != 0u ? 0x400000u : 0u));
  if (exponent == 0u) {
    const float value = static_cast<float>(fraction) * 0x1p-24F;
    return sign != 0u ? -value : value;
  }
  return float_of_bits(sign | ((exponent + 112u) << 23) | (fraction << 13));
}

// To nearest, ties to even; above 65519.99 to infinity, subnormals kept, NaN stays NaN with its leading bits.
inline uint16_t float_to_f16(float value) {
  const uint32_t bits = bits_of_float(value);
  const uint32_t sign = (bits >> 16) & 0x8000u;
  const uint32_t magnitude = bits & 0x7FFFFFFFu;
  if (magnitude > 0x7F800000u) return static_cast<uint16_t>(sign | 0x7E00u | ((magnitude >> 13) & 0x3FFu));
  if (magnitude >= 0x47800000u) return static_cast<uint16_t>(sign | 0x7C00u);  // 2^16 and more

  // The value as `wide` units of 2^-drop of the result's last place, then one rounding.
  const uint32_t exponent = magnitude >> 23;
  uint32_t drop = 13u;
  uint32_t wide = magnitude - (112u << 23);
  if (exponent < 113u) {                                      // below 2^-14: the last place is 2^-24
    if (exponent < 102u) return static_cast<uint16_t>(sign);  // below 2^-25
    drop = 126u - exponent;
    wide = (magnitude & 0x7FFFFFu) | 0x800000u;
  }
  const uint32_t kept = wide >> drop;
  const uint32_t rest = wide & ((1u << drop) - 1u);
  const uint32_t half = 1u << (drop - 1u);
  const uint32_t up = rest > half || (rest == half && (kept & 1u) != 0u) ? 1u : 0u;
  return static_cast<uint16_t>(sign | (kept + up));  // a carry runs into the exponent, up to infinity
}

}  // namespace
}  // namespace scrimp::scalar
