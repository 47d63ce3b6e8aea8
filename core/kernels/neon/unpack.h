// From stored vectors to signed codes of eight bits, of a table to its levels: 16 rows x 4 inputs ("a quad") in four
// registers of 4 rows.
//
// A register is what sdot takes: four bytes per 32-bit lane. Codes of six bits and less are positive numbers of eight
// bits as they are; of int8 and of levels 128 is taken off (kBias), and given back where the int32 sums begin. A step
// is 32 inputs: 8 quads, a whole number of vectors in every plane. Planes of two widths meet by shift-left-and-insert.
#pragma once

#include <arm_neon.h>

#include "kernels/kernels.h"

#define SCRIMP_INLINE inline __attribute__((always_inline))

namespace scrimp::neon {
namespace {

constexpr int kStepQuads = 8;
constexpr int64_t kStepCols = 32;
constexpr int kRegs = 4;  // registers of a quad

#include "kernels/simd/each.inl"

struct Quad {
  uint8x16_t rows[kRegs];  // rows 4i .. 4i + 3
};

SCRIMP_INLINE Quad load(const uint8_t* p) {
  return {{vld1q_u8(p), vld1q_u8(p + 16), vld1q_u8(p + 32), vld1q_u8(p + 48)}};
}

SCRIMP_INLINE void store(uint8_t* p, const Quad& v) {
  each<kRegs>([&](auto i) __attribute__((always_inline)) { vst1q_u8(p + 16 * i.value, v.rows[i.value]); });
}

template <int kBits>
SCRIMP_INLINE uint8x16_t shift_right(uint8x16_t v) {
  if constexpr (kBits == 0) return v;
  if constexpr (kBits > 0) return vshrq_n_u8(v, kBits);
}

// Field kIndex of kBits bits of every byte.
template <int kBits, int kIndex>
SCRIMP_INLINE uint8x16_t field(uint8x16_t v) {
  const uint8x16_t down = shift_right<kBits * kIndex>(v);
  if constexpr (kBits * (kIndex + 1) == 8) return down;
  return vandq_u8(down, vdupq_n_u8((1 << kBits) - 1));
}

// kLow bits in plane 0 and kHigh more in plane 1. f(Index<quad>, codes) for the 8 quads of a step.
template <int kLow, int kHigh>
struct Planes {
  static constexpr int vectors[2] = {kLow, kHigh};
  static constexpr int most = (1 << (kLow + kHigh)) - 1;  // the largest code, or its negative
  static constexpr int32_t bias = 0;

  template <class F>
  SCRIMP_INLINE void step(const uint8_t* const p[2], F f) const {
    each<kStepQuads>([&](auto q) __attribute__((always_inline)) {
      constexpr int kPerVector = 8 / kLow;
      Quad codes = load(p[0] + q.value / kPerVector * kVectorBytes);
      each<kRegs>([&](auto i) __attribute__((always_inline)) {
        uint8x16_t& v = codes.rows[i.value];
        if constexpr (kHigh == 0) {
          v = field<kLow, q.value % kPerVector>(v);
        } else {  // the insertion leaves only the low bits of what it is inserted into
          constexpr int kPerHigh = 8 / kHigh;
          const uint8x16_t high = vld1q_u8(p[1] + q.value / kPerHigh * kVectorBytes + 16 * i.value);
          v = vsliq_n_u8(shift_right<kLow*(q.value % kPerVector)>(v), field<kHigh, q.value % kPerHigh>(high), kLow);
        }
      });
      f(q, codes);
    });
  }
};

// Bytes, less 128.
struct Bytes {
  static constexpr int vectors[2] = {8, 0};
  static constexpr int most = 128;
  static constexpr int32_t bias = 128;

  template <class F>
  SCRIMP_INLINE void step(const uint8_t* const p[2], F f) const {
    each<kStepQuads>([&](auto q) __attribute__((always_inline)) {
      Quad codes = load(p[0] + q.value * kVectorBytes);
      each<kRegs>([&](auto i) __attribute__((always_inline)) {
        codes.rows[i.value] = veorq_u8(codes.rows[i.value], vdupq_n_u8(128));
      });
      f(q, codes);
    });
  }
};

// Single bits that count twice: symmetric binary, step 2.
struct TwiceBits {
  static constexpr int vectors[2] = {1, 0};
  static constexpr int most = 2;
  static constexpr int32_t bias = 0;

  template <class F>
  SCRIMP_INLINE void step(const uint8_t* const p[2], F f) const {
    const Quad bits = load(p[0]);
    each<kStepQuads>([&](auto q) __attribute__((always_inline)) {
      Quad codes;
      each<kRegs>([&](auto i) __attribute__((always_inline)) {
        const uint8x16_t v = bits.rows[i.value];
        uint8x16_t moved;
        if constexpr (q.value == 0)
          moved = vaddq_u8(v, v);
        else
          moved = shift_right<q.value - 1>(v);
        codes.rows[i.value] = vandq_u8(moved, vdupq_n_u8(2));
      });
      f(q, codes);
    });
  }
};

// Levels of a table less 128, by codes of kLow + kHigh bits.
template <int kLow, int kHigh>
struct Levels {
  static constexpr int vectors[2] = {kLow, kHigh};
  static constexpr int most = 128;
  static constexpr int32_t bias = kTableZero;
  uint8x16_t table;

  explicit Levels(const Matrix& w) : table(veorq_u8(vld1q_u8(w.levels), vdupq_n_u8(kTableZero))) {}

  template <class F>
  SCRIMP_INLINE void step(const uint8_t* const p[2], F f) const {
    Planes<kLow, kHigh>{}.step(p, [&](auto q, Quad codes) __attribute__((always_inline)) {
      each<kRegs>([&](auto i)
                      __attribute__((always_inline)) { codes.rows[i.value] = vqtbl1q_u8(table, codes.rows[i.value]); });
      f(q, codes);
    });
  }
};

// Quads of codes up to `most` times activations up to 127 that fit into 16 bits: 8, 4 or 2.
constexpr int hold_of(int most) {
  int quads = kStepQuads;
  while (quads * most * 127 > 32767) quads /= 2;
  return quads;
}

constexpr int32_t bias_of(const Matrix& w) {
  if (w.element == Element::kTable) return kTableZero;
  return w.element == Element::kInt && w.bits == 8 ? Bytes::bias : 0;
}

constexpr int kMostTrit = 2;

// Trits 0, 1, 2 of what is left of a byte, 0..26, then trits 3, 4 of its quotient by 27, 0..8.
alignas(16) constexpr uint8_t kTrits[5][32] = {
    {0, 1, 2, 0, 1, 2, 0, 1, 2, 0, 1, 2, 0, 1, 2, 0, 1, 2, 0, 1, 2, 0, 1, 2, 0, 1, 2},
    {0, 0, 0, 1, 1, 1, 2, 2, 2, 0, 0, 0, 1, 1, 1, 2, 2, 2, 0, 0, 0, 1, 1, 1, 2, 2, 2},
    {0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 1, 1, 1, 1, 1, 2, 2, 2, 2, 2, 2, 2, 2, 2},
    {0, 1, 2, 0, 1, 2, 0, 1, 2},
    {0, 0, 0, 1, 1, 1, 2, 2, 2}};

// Five trits per byte: byte = t0 + 3 t1 + 9 t2 + 27 t3 + 81 t4, 0..242. f(Index<register>, Index<0..4>, codes).
// byte / 27 = (19 * byte) >> 9, exact below 459. The tables take eight registers, so the codes come one by one.
template <class F>
SCRIMP_INLINE void trits(const uint8_t* p, F f) {
  each<kRegs>([&](auto i) __attribute__((always_inline)) {
    const uint8x16_t bytes = vld1q_u8(p + 16 * i.value);
    const uint8x16_t even = vreinterpretq_u8_u16(vmull_u8(vget_low_u8(bytes), vdup_n_u8(19)));
    const uint8x16_t odd = vreinterpretq_u8_u16(vmull_high_u8(bytes, vdupq_n_u8(19)));
    const uint8x16_t quotient = vshrq_n_u8(vuzp2q_u8(even, odd), 1);
    const uint8x16_t rest = vmlsq_u8(bytes, quotient, vdupq_n_u8(27));
    each<5>([&](auto t) __attribute__((always_inline)) {
      if constexpr (t.value < 3)
        f(i, t, vqtbl2q_u8(vld1q_u8_x2(kTrits[t.value]), rest));
      else
        f(i, t, vqtbl1q_u8(vld1q_u8(kTrits[t.value]), quotient));
    });
  });
}

// The five quads of a vector of trits, one after the other.
SCRIMP_INLINE void unpack_vector(const uint8_t* p, uint8_t* quads) {
  trits(p, [&](auto r, auto t, uint8x16_t codes)
               __attribute__((always_inline)) { vst1q_u8(quads + t.value * kVectorBytes + 16 * r.value, codes); });
}

#include "kernels/simd/planes.inl"

}  // namespace
}  // namespace scrimp::neon
