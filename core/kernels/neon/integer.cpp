#include <arm_neon.h>
#include <string.h>

#include "kernels/neon/isa.h"

namespace scrimp::neon {
namespace {

struct Sixteen {
  int32x4_t v[4];
};

// Weights of 16 outputs: the first and the second inputs of their pairs.
struct Pairs {
  int16x8x2_t v[2];
};

inline Sixteen zeros() { return {}; }

inline Pairs load(const int16_t* from) { return {{vld2q_s16(from), vld2q_s16(from + 16)}}; }

inline Sixteen load(const int32_t* from) {
  return {{vld1q_s32(from), vld1q_s32(from + 4), vld1q_s32(from + 8), vld1q_s32(from + 12)}};
}

inline void store(int32_t* to, Sixteen v) {
  for (int i = 0; i < 4; ++i) vst1q_s32(to + 4 * i, v.v[i]);
}

template <class F>
inline Sixteen each(F f) {
  return {{f(0), f(1), f(2), f(3)}};
}

inline Sixteen add(Sixteen a, Sixteen b) {
  return each([&](int i) { return vaddq_s32(a.v[i], b.v[i]); });
}

// total + both products of the pair at `inputs` and of each pair of w
inline Sixteen add_products(Sixteen total, Pairs w, const int16_t* inputs) {
  int32_t pair;
  memcpy(&pair, inputs, sizeof pair);
  const int16x4_t x = vreinterpret_s16_s32(vdup_n_s32(pair));
  for (int i = 0; i < 2; ++i) {
    const int16x8_t one = w.v[i].val[0], other = w.v[i].val[1];
    total.v[2 * i] = vmlal_lane_s16(total.v[2 * i], vget_low_s16(one), x, 0);
    total.v[2 * i] = vmlal_lane_s16(total.v[2 * i], vget_low_s16(other), x, 1);
    total.v[2 * i + 1] = vmlal_high_lane_s16(total.v[2 * i + 1], one, x, 0);
    total.v[2 * i + 1] = vmlal_high_lane_s16(total.v[2 * i + 1], other, x, 1);
  }
  return total;
}

inline Sixteen multiply(Sixteen a, Sixteen b) {
  return each([&](int i) { return vmulq_s32(a.v[i], b.v[i]); });
}

inline Sixteen shift_right(Sixteen v, int32_t bits) {
  return each([&](int i) { return vshlq_s32(v.v[i], vdupq_n_s32(-bits)); });
}

inline Sixteen clamp(Sixteen v, int32_t low, int32_t high) {
  return each([&](int i) { return vminq_s32(vmaxq_s32(v.v[i], vdupq_n_s32(low)), vdupq_n_s32(high)); });
}

#include "kernels/simd/integer.inl"

}  // namespace

void integer_product(const IntegerProduct& p) { integer_product_body(p); }

void requantize(int32_t* sums, int64_t rows, const Requantizer& by) { requantize_body(sums, rows, by); }

}  // namespace scrimp::neon
