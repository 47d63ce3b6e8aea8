// Integer matrix products of any processor: bytes multiplied into 16 bits.
#include "kernels/neon/linear_int8.h"

namespace scrimp::neon {
namespace {

typedef int32_t __attribute__((may_alias, aligned(1))) Word;  // four int8 activations

SCRIMP_INLINE int8x16_t broadcast(const int8_t* quad) {
  return vreinterpretq_s8_s32(vdupq_n_s32(*reinterpret_cast<const Word*>(quad)));
}

// Products of 4 rows x 4 inputs, rows 0 and 1 in sum[0]; kNew: nothing was in `sum`.
template <bool kNew>
SCRIMP_INLINE void add_products(int16x8_t (&sum)[2], int8x16_t codes, int8x16_t x) {
  if constexpr (kNew) {
    sum[0] = vmull_s8(vget_low_s8(codes), vget_low_s8(x));
    sum[1] = vmull_high_s8(codes, x);
  } else {
    sum[0] = vmlal_s8(sum[0], vget_low_s8(codes), vget_low_s8(x));
    sum[1] = vmlal_high_s8(sum[1], codes, x);
  }
}

// 16-bit sums of hold_of(codes) quads at a time, then 32-bit sums of two neighbours: two of them make a row.
struct Dot {
  int16x8_t narrow[kRegs][2];
  int32x4_t wide[kRegs][2];

  SCRIMP_INLINE void begin(int32_t start) {
    const int32x4_t half = vreinterpretq_s32_u64(vdupq_n_u64(static_cast<uint32_t>(start)));
    each<kRegs>([&](auto r) __attribute__((always_inline)) { wide[r.value][0] = wide[r.value][1] = half; });
  }

  template <int kReg, int kQuad, int kMost, int kRun>
  SCRIMP_INLINE void add(uint8x16_t codes, int8x16_t x) {
    add_lane<kReg, kQuad, kMost, kRun, kQuad % 4>(codes, x);
  }

  template <int kReg, int kQuad, int kMost, int kLane>
  SCRIMP_INLINE void add_apart(uint8x16_t codes, int8x16_t x) {
    add_lane<kReg, kQuad, kMost, kStepQuads, kLane>(codes, x);
  }

  template <int kReg, int kQuad, int kMost, int kRun, int kLane>
  SCRIMP_INLINE void add_lane(uint8x16_t codes, int8x16_t inputs) {
    constexpr int kHold = hold_of(kMost) < kRun ? hold_of(kMost) : kRun;
    const int8x16_t x = vreinterpretq_s8_s32(vdupq_laneq_s32(vreinterpretq_s32_s8(inputs), kLane));
    add_products<kQuad % kHold == 0>(narrow[kReg], vreinterpretq_s8_u8(codes), x);
    if constexpr ((kQuad + 1) % kHold == 0)
      for (int h = 0; h < 2; ++h) wide[kReg][h] = vpadalq_s16(wide[kReg][h], narrow[kReg][h]);
  }

  SCRIMP_INLINE Integers total() const {
    Integers found;
    each<kRegs>([&](auto r) __attribute__((always_inline)) {
      found.rows[r.value] = vpaddq_s32(wide[r.value][0], wide[r.value][1]);
    });
    return found;
  }
};

struct Block {
  static constexpr int kSizes[] = {1, 3};
  static constexpr int rows_of(int tokens) { return tokens == 1 ? 4 : 2; }
  static constexpr int64_t kRegBytes = 16, kTokenBytes = 4;
  static constexpr bool kArranged = false;
  static constexpr int64_t step_bytes(int64_t stride) { return kStepQuads * stride; }

  static constexpr int64_t panel_bytes(int) { return kStepQuads * kVectorBytes; }

  template <int kMost>
  static SCRIMP_INLINE void store_step(uint8_t* to, const Quad (&codes)[kStepQuads]) {
    each<kStepQuads>([&](auto q)
                         __attribute__((always_inline)) { store(to + q.value * kVectorBytes, codes[q.value]); });
  }

  // 3 tokens x 8 rows: 12 sums of 16 bits and 12 of 32. Cost: a multiply-add per 8 products, per `hold` of them one
  // that widens.
  template <int kRows, int kTokens>
  static SCRIMP_INLINE void sums(const uint8_t* codes, const int8_t* quads, int64_t stride, int64_t steps, int hold,
                                 const int32_t* start, int32x4_t (&sum)[kRows * kTokens]) {
    int32x4_t wide[kRows * kTokens][2];
    each<kRows * kTokens>([&](auto n) __attribute__((always_inline)) {
      wide[n.value][0] = wide[n.value][1] =
          vreinterpretq_s32_u64(vdupq_n_u64(static_cast<uint32_t>(start[n.value / kRows])));
    });
    const uint8_t* const end = codes + steps * kStepQuads * kVectorBytes;
    do {
      int16x8_t narrow[kRows * kTokens][2];
      each<kRows * kTokens>(
          [&](auto n) __attribute__((always_inline)) { narrow[n.value][0] = narrow[n.value][1] = vdupq_n_s16(0); });
      int left = hold;
      do {
        int8x16_t rows[kRows];
        each<kRows>([&](auto r) __attribute__((always_inline)) {
          rows[r.value] = vreinterpretq_s8_u8(vld1q_u8(codes + 16 * r.value));
        });
        each<kTokens>([&](auto t) __attribute__((always_inline)) {
          const int8x16_t x = broadcast(quads + 4 * t.value);
          each<kRows>([&](auto r) __attribute__((always_inline)) {
            add_products<false>(narrow[t.value * kRows + r.value], rows[r.value], x);
          });
        });
        codes += kVectorBytes;
        quads += stride;
      } while (--left > 0);
      each<kRows * kTokens>([&](auto n) __attribute__((always_inline)) {
        for (int h = 0; h < 2; ++h) wide[n.value][h] = vpadalq_s16(wide[n.value][h], narrow[n.value][h]);
      });
    } while (codes < end);
    each<kRows * kTokens>(
        [&](auto n) __attribute__((always_inline)) { sum[n.value] = vpaddq_s32(wide[n.value][0], wide[n.value][1]); });
  }
};

#include "kernels/simd/linear_int8_decode.inl"
#include "kernels/simd/linear_int8_prefill.inl"

// Sums of inputs [begin, end) for each of 12 tokens; those past `width` are meaningless (the block is padded by 64
// inputs).
void sums_of(const int8_t* quads, int64_t width, int64_t begin, int64_t end, int32_t sums[kTokenBlock]) {
  int32x4_t found[3] = {};
  for (int64_t k = begin; k < end; k += 4)
    for (int64_t i = 0; 4 * i < width; ++i)
      found[i] = vpadalq_s16(found[i], vpaddlq_s8(vld1q_s8(quads + k * width + 16 * i)));
  for (int64_t i = 0; i < 3; ++i) vst1q_s32(sums + 4 * i, found[i]);
}

}  // namespace

#include "kernels/simd/describe_pieces.inl"

void linear_int8(const Matrix& w, const Activations& x, int64_t tile_begin, int64_t tile_end, float* y,
                 int64_t y_stride, uint8_t* scratch) {
  if (x.tokens == 1) return decode_body(w, x, tile_begin, tile_end, y, scratch);
  prefill_body(w, x, tile_begin, tile_end, y, y_stride, scratch);
}

}  // namespace scrimp::neon
