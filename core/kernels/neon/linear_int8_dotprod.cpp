// Integer matrix products of processors with sdot (FEAT_DotProd): four products of bytes into 32 bits.
#include "kernels/neon/linear_int8.h"

namespace scrimp::neon::dotprod {
namespace {

struct Dot {
  Integers sum;
  int32x4_t apart[kRegs];

  SCRIMP_INLINE void begin(int32_t start) {
    each<kRegs>([&](auto r) __attribute__((always_inline)) { sum.rows[r.value] = vdupq_n_s32(start); });
  }

  template <int kReg, int kQuad, int kMost, int kRun>
  SCRIMP_INLINE void add(uint8x16_t codes, int8x16_t x) {
    sum.rows[kReg] = vdotq_laneq_s32(sum.rows[kReg], vreinterpretq_s8_u8(codes), x, kQuad % 4);
  }

  template <int kReg, int kQuad, int kMost, int kLane>
  SCRIMP_INLINE void add_apart(uint8x16_t codes, int8x16_t x) {
    if constexpr (kQuad == 0) apart[kReg] = vdupq_n_s32(0);
    apart[kReg] = vdotq_laneq_s32(apart[kReg], vreinterpretq_s8_u8(codes), x, kLane);
    if constexpr (kQuad == kStepQuads - 1) sum.rows[kReg] = vaddq_s32(sum.rows[kReg], apart[kReg]);
  }

  SCRIMP_INLINE Integers total() const { return sum; }
};

struct Block {
  static constexpr int kSizes[] = {2, 4, 8, 12};
  static constexpr int rows_of(int tokens) { return tokens <= 4 ? 4 : 2; }
  static constexpr int64_t kRegBytes = 16, kTokenBytes = 4;
  static constexpr bool kArranged = false;
  static constexpr int64_t step_bytes(int64_t stride) { return kStepQuads * stride; }

  static constexpr int64_t panel_bytes(int) { return kStepQuads * kVectorBytes; }

  template <int kMost>
  static SCRIMP_INLINE void store_step(uint8_t* to, const Quad (&codes)[kStepQuads]) {
    each<kStepQuads>([&](auto q)
                         __attribute__((always_inline)) { store(to + q.value * kVectorBytes, codes[q.value]); });
  }

  // 12 tokens x 8 rows: 24 sums, and 5 loads for 24 dot products, as a register holds four inputs of four tokens.
  template <int kRows, int kTokens>
  static SCRIMP_INLINE void sums(const uint8_t* codes, const int8_t* quads, int64_t stride, int64_t steps, int,
                                 const int32_t* start, int32x4_t (&sum)[kRows * kTokens]) {
    constexpr int kFours = (kTokens + 3) / 4;
    each<kRows * kTokens>([&](auto n)
                              __attribute__((always_inline)) { sum[n.value] = vdupq_n_s32(start[n.value / kRows]); });
    int64_t left = steps * kStepQuads;
    do {
      int8x16_t x[kFours], rows[kRows];
      each<kFours>([&](auto i) __attribute__((always_inline)) { x[i.value] = vld1q_s8(quads + 16 * i.value); });
      each<kRows>([&](auto r) __attribute__((always_inline)) {
        rows[r.value] = vreinterpretq_s8_u8(vld1q_u8(codes + 16 * r.value));
      });
      each<kRows * kTokens>([&](auto n) __attribute__((always_inline)) {
        constexpr int kToken = n.value / kRows;
        sum[n.value] = vdotq_laneq_s32(sum[n.value], rows[n.value % kRows], x[kToken / 4], kToken % 4);
      });
      codes += kVectorBytes;
      quads += stride;
    } while (--left > 0);
  }
};

#include "kernels/simd/linear_int8_decode.inl"
#include "kernels/simd/linear_int8_prefill.inl"

}  // namespace

void linear_int8(const Matrix& w, const Activations& x, int64_t tile_begin, int64_t tile_end, float* y,
                 int64_t y_stride, uint8_t* scratch) {
  if (x.tokens == 1) return decode_body(w, x, tile_begin, tile_end, y, scratch);
  prefill_body(w, x, tile_begin, tile_end, y, y_stride, scratch);
}

}  // namespace scrimp::neon::dotprod
