// What the one-token and the many-token products share: segments and scales. How four codes are multiplied by four
// activations differs between processors; see linear_int8.cpp (no dot product), linear_int8_dotprod.cpp and
// linear_int8_i8mm.cpp.
#pragma once

#include "kernels/neon/isa.h"
#include "kernels/neon/powers.h"
#include "kernels/neon/unpack.h"

namespace scrimp::neon {

// Inputs [begin, end) are cut at the ends of groups and segments into pieces: one int32 sum each.
struct Pieces {
  int32_t* start;     // [pieces][stride] where the int32 sum begins: (bias - zero) * sum of the activations
  float* scale;       // [pieces][stride] of the activations
  float* group_sums;  // [groups][stride] scaled sums of the activations, for mins
  int64_t stride;     // tokens, at least those there are
};

// Fill them for the token block that begins with token `first`. Returns how many pieces there are.
int64_t describe_pieces(const Matrix& w, const Activations& x, int64_t begin, int64_t end, int64_t first,
                        const Pieces& pieces);

namespace {

constexpr int64_t smaller(int64_t a, int64_t b) { return a < b ? a : b; }

// Where the segment, group or chunk that holds input k ends.
constexpr int64_t end_of(int64_t k, int64_t length, int64_t limit) { return smaller((k / length + 1) * length, limit); }

// Inputs whose products are summed in int32 before a scale is applied: a block of activations or a group of weights,
// whichever is shorter, and never so long that int32 could overflow (255 * 127 * 65536 < 2^31).
inline int64_t segment_inputs(const Matrix& w, const Activations& x) {
  constexpr int64_t kLongest = 65536;
  return smaller(smaller(smaller(w.group, x.block), w.cols), kLongest);
}

// f(k, end, ends) for each piece of [begin, end): `ends` where the piece is the last of its group within them.
template <class F>
SCRIMP_INLINE void each_piece(const Matrix& w, int64_t segment, int64_t begin, int64_t end, F f) {
  for (int64_t k = begin; k < end;) {
    const int64_t group_begin = k / w.group * w.group;
    const int64_t group_end = end_of(k, w.group, end);
    while (k < group_end) {
      const int64_t piece_end = smaller(group_begin + end_of(k - group_begin, segment, w.cols), group_end);
      f(k, piece_end, piece_end == group_end);
      k = piece_end;
    }
  }
}

// 16 rows of a tile.
struct Floats {
  float32x4_t rows[kRegs];
};

struct Integers {
  int32x4_t rows[kRegs];
};

SCRIMP_INLINE Floats zeros() {
  const float32x4_t zero = vdupq_n_f32(0.0F);
  return {{zero, zero, zero, zero}};
}

// y += a * b
SCRIMP_INLINE void add_product(Floats& y, const Floats& a, const Floats& b) {
  each<kRegs>([&](auto i) __attribute__((always_inline)) {
    y.rows[i.value] = vfmaq_f32(y.rows[i.value], a.rows[i.value], b.rows[i.value]);
  });
}

// y += a * scale, the same for all rows
SCRIMP_INLINE void add_scaled(Floats& y, const Floats& a, float scale) {
  each<kRegs>([&](auto i) __attribute__((always_inline)) {
    y.rows[i.value] = vfmaq_n_f32(y.rows[i.value], a.rows[i.value], scale);
  });
}

SCRIMP_INLINE Floats to_floats(const Integers& v) {
  return {{vcvtq_f32_s32(v.rows[0]), vcvtq_f32_s32(v.rows[1]), vcvtq_f32_s32(v.rows[2]), vcvtq_f32_s32(v.rows[3])}};
}

// 4 scales (or mins) from element `at` on, as float.
SCRIMP_INLINE float32x4_t load_scales4(const void* plane, ScaleType type, int64_t at) {
  if (type == ScaleType::kF32) return vld1q_f32(static_cast<const float*>(plane) + at);
  if (type == ScaleType::kE8m0) return powers_of_two(static_cast<const uint8_t*>(plane) + at);
  const uint16x4_t stored = vld1_u16(static_cast<const uint16_t*>(plane) + at);
  if (type == ScaleType::kF16) return vcvt_f32_f16(vreinterpret_f16_u16(stored));
  return vreinterpretq_f32_u32(vshll_n_u16(stored, 16));
}

// 16 of one tile and group.
SCRIMP_INLINE Floats load_scales(const void* plane, ScaleType type, int64_t at) {
  return {{load_scales4(plane, type, at), load_scales4(plane, type, at + 4), load_scales4(plane, type, at + 8),
           load_scales4(plane, type, at + 12)}};
}

// The first `count` of 4 floats from and to memory, the others neither read nor written.
inline float32x4_t load_rows(const float* y, int64_t count) {
  if (count >= 4) return vld1q_f32(y);
  float rows[4] = {};
  for (int64_t i = 0; i < count; ++i) rows[i] = y[i];
  return vld1q_f32(rows);
}

inline void store_rows(float* y, int64_t count, float32x4_t values) {
  if (count >= 4) return vst1q_f32(y, values);
  float rows[4];
  vst1q_f32(rows, values);
  for (int64_t i = 0; i < count; ++i) y[i] = rows[i];
}

}  // namespace
}  // namespace scrimp::neon
