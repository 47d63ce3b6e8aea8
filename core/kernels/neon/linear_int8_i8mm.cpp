// Integer matrix products of processors with smmla (FEAT_I8MM): 2 rows x 8 inputs times 8 inputs x 2 tokens.
#include "kernels/neon/linear_int8.h"

namespace scrimp::neon::i8mm {
namespace {

// Both sides lie as smmla takes them, eight inputs of two rows or two tokens in a register:
//   panel        [K/8][8 pairs of rows][2][8]
//   activations  [K/8][6 pairs of tokens][2][8], whatever the number of tokens
struct Block {
  static constexpr int kSizes[] = {2, 4, 8, 12};
  static constexpr int rows_of(int tokens) { return tokens <= 4 ? 4 : 2; }
  static constexpr int64_t kRegBytes = 32, kTokenBytes = 8;
  static constexpr int64_t kCodeBytes = 2 * kVectorBytes, kInputBytes = 8 * kTokenBlock;  // of eight inputs
  static constexpr int kEights = kStepQuads / 2;
  static constexpr bool kArranged = true;
  static constexpr int64_t step_bytes(int64_t) { return kEights * kInputBytes; }

  static constexpr int64_t panel_bytes(int) { return kStepQuads * kVectorBytes; }

  template <int kMost>
  static SCRIMP_INLINE void store_step(uint8_t* to, const Quad (&codes)[kStepQuads]) {
    each<kEights>([&](auto i) __attribute__((always_inline)) {
      each<kRegs>([&](auto r) __attribute__((always_inline)) {
        const uint32x4_t a = vreinterpretq_u32_u8(codes[2 * i.value].rows[r.value]);
        const uint32x4_t b = vreinterpretq_u32_u8(codes[2 * i.value + 1].rows[r.value]);
        uint8_t* at = to + i.value * kCodeBytes + r.value * kRegBytes;
        vst1q_u8(at, vreinterpretq_u8_u32(vzip1q_u32(a, b)));
        vst1q_u8(at + 16, vreinterpretq_u8_u32(vzip2q_u32(a, b)));
      });
    });
  }

  // 32 inputs of the tokens of a block, quads `stride` bytes apart; what is past the last token is never used.
  static void arrange(const int8_t* quads, int64_t stride, int8_t* to) {
    for (int64_t i = 0; i < kEights; ++i, quads += 2 * stride, to += kInputBytes) {
      for (int64_t t = 0; t < stride; t += 16) {  // four tokens
        const int32x4_t a = vreinterpretq_s32_s8(vld1q_s8(quads + t));
        const int32x4_t b = vreinterpretq_s32_s8(vld1q_s8(quads + stride + t));
        vst1q_s8(to + 2 * t, vreinterpretq_s8_s32(vzip1q_s32(a, b)));
        vst1q_s8(to + 2 * t + 16, vreinterpretq_s8_s32(vzip2q_s32(a, b)));
      }
    }
  }

  // 12 tokens x 8 rows: 24 sums of 2 rows x 2 tokens, and 10 loads for 24 products.
  template <int kRows, int kTokens>
  static SCRIMP_INLINE void sums(const uint8_t* codes, const int8_t* x, int64_t, int64_t steps, int,
                                 const int32_t* start, int32x4_t (&sum)[kRows * kTokens]) {
    constexpr int kPairs = kTokens / 2;
    int32x4_t found[2 * kRows][kPairs];
    each<kPairs>([&](auto p) __attribute__((always_inline)) {
      const int32x2_t two = vld1_s32(start + 2 * p.value);
      each<2 * kRows>([&](auto r) __attribute__((always_inline)) { found[r.value][p.value] = vcombine_s32(two, two); });
    });
    int64_t left = steps * kEights;
    do {
      int8x16_t rows[2 * kRows];
      each<2 * kRows>([&](auto r) __attribute__((always_inline)) {
        rows[r.value] = vreinterpretq_s8_u8(vld1q_u8(codes + 16 * r.value));
      });
      each<kPairs>([&](auto p) __attribute__((always_inline)) {
        // Not before the pair before the last one is done: GCC 12 otherwise has all pairs in registers and spills sums.
        if constexpr (p.value >= 2) {
          constexpr int kDone = p.value - 2;
          asm("" : "+r"(x), "+w"(found[0][kDone]), "+w"(found[1][kDone]), "+w"(found[2][kDone]), "+w"(found[3][kDone]));
        }
        const int8x16_t inputs = vld1q_s8(x + 16 * p.value);
        each<2 * kRows>([&](auto r) __attribute__((always_inline)) {
          found[r.value][p.value] = vmmlaq_s32(found[r.value][p.value], rows[r.value], inputs);
        });
      });
      codes += kCodeBytes;
      x += kInputBytes;
    } while (--left > 0);
    each<kPairs>([&](auto p) __attribute__((always_inline)) {
      each<kRows>([&](auto r) __attribute__((always_inline)) {
        const int32x4_t a = found[2 * r.value][p.value];  // rows 0, 0, 1, 1 of tokens 0, 1, 0, 1
        const int32x4_t b = found[2 * r.value + 1][p.value];
        sum[2 * p.value * kRows + r.value] = vuzp1q_s32(a, b);
        sum[(2 * p.value + 1) * kRows + r.value] = vuzp2q_s32(a, b);
      });
    });
  }
};

#include "kernels/simd/linear_int8_prefill.inl"

}  // namespace

void linear_int8(const Matrix& w, const Activations& x, int64_t tile_begin, int64_t tile_end, float* y,
                 int64_t y_stride, uint8_t* scratch) {
  if (x.tokens == 1) return dotprod::linear_int8(w, x, tile_begin, tile_end, y, y_stride, scratch);
  prefill_body(w, x, tile_begin, tile_end, y, y_stride, scratch);
}

}  // namespace scrimp::neon::i8mm
