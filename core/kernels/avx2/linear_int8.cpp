// Integer matrix products of processors without a dot product of bytes: pairs of them, in 16 bits (vpmaddubsw).
#include "kernels/avx2/linear_int8.h"

namespace scrimp::avx2 {
namespace {

// sum += pairs of codes * activations, in 16 bits.
// The empty assembly holds the order of the additions: GCC 12 otherwise regroups them, and keeps a step's worth of
// products on the stack.
template <bool kNew = false>
SCRIMP_INLINE void add_pairs(__m256i& sum, __m256i codes, __m256i x) {
  const __m256i pairs = _mm256_maddubs_epi16(codes, x);
  __m256i next = kNew ? pairs : _mm256_add_epi16(sum, pairs);
  asm volatile("" : "+x"(next));
  sum = next;
}

// wide += weight * (pairs of narrow), exact in int32.
SCRIMP_INLINE void widen(__m256i& wide, __m256i narrow, int16_t weight = 1) {
  wide = _mm256_add_epi32(wide, _mm256_madd_epi16(narrow, _mm256_set1_epi16(weight)));
}

// Codes whose products with activations do not fit into 16 bits are multiplied as two of four bits.
SCRIMP_INLINE __m256i low_half(__m256i codes) { return _mm256_and_si256(codes, _mm256_set1_epi8(15)); }
SCRIMP_INLINE __m256i high_half(__m256i codes) { return low_half(_mm256_srli_epi16(codes, 4)); }

// 16-bit sums of hold_of(codes) quads at a time, then 32-bit sums.
struct Dot {
  __m256i wide[kRegs], narrow[kRegs], high[kRegs];

  SCRIMP_INLINE void begin(int32_t start) {
    each<kRegs>([&](auto r) __attribute__((always_inline)) { wide[r.value] = _mm256_set1_epi32(start); });
  }

  template <int kReg, int kQuad, int kMost, int kRun>
  SCRIMP_INLINE void add(__m256i codes, FourQuads x) {
    add_lane<kReg, kQuad, kMost, kRun, kQuad % 4>(codes, x);
  }

  template <int kReg, int kQuad, int kMost, int kLane>
  SCRIMP_INLINE void add_apart(__m256i codes, FourQuads x) {
    add_lane<kReg, kQuad, kMost, kStepQuads, kLane>(codes, x);
  }

  template <int kReg, int kQuad, int kMost, int kRun, int kLane>
  SCRIMP_INLINE void add_lane(__m256i codes, FourQuads inputs) {
    const __m256i x = broadcast(inputs + 4 * kLane);
    if constexpr (hold_of(kMost) == 0) {
      add_pairs<kQuad == 0>(narrow[kReg], low_half(codes), x);
      add_pairs<kQuad == 0>(high[kReg], high_half(codes), x);
      if constexpr (kQuad + 1 == kRun) {
        widen(wide[kReg], narrow[kReg]);
        widen(wide[kReg], high[kReg], 16);
      }
    } else {
      constexpr int kHold = hold_of(kMost) < kRun ? hold_of(kMost) : kRun;
      add_pairs<kQuad % kHold == 0>(narrow[kReg], codes, x);
      if constexpr ((kQuad + 1) % kHold == 0) widen(wide[kReg], narrow[kReg]);
    }
  }

  SCRIMP_INLINE Integers total() const { return {{wide[0], wide[1]}}; }
};

struct Block {
  static constexpr int kSizes[] = {1, 3};
  static constexpr int rows_of(int) { return kRegs; }
  static constexpr int64_t kRegBytes = 32, kTokenBytes = 4, kRunBytes = kStepQuads * kVectorBytes;
  static constexpr bool kArranged = false;
  static constexpr int64_t step_bytes(int64_t stride) { return kStepQuads * stride; }
  static constexpr int64_t panel_bytes(int most) { return (hold_of(most) == 0 ? 2 : 1) * kRunBytes; }

  template <int kMost>
  static SCRIMP_INLINE void store_step(uint8_t* to, const Quad (&codes)[kStepQuads]) {
    each<kStepQuads>([&](auto q) __attribute__((always_inline)) {
      each<kRegs>([&](auto r) __attribute__((always_inline)) {
        uint8_t* at = to + q.value * kVectorBytes + kRegBytes * r.value;
        const __m256i all = codes[q.value].rows[r.value];
        if constexpr (hold_of(kMost) == 0) {
          store(at, low_half(all));
          store(at + kRunBytes, high_half(all));
        } else {
          store(at, all);
        }
      });
    });
  }

  // sum += weight * the products of kQuads quads.
  template <int kTokens, int kQuads>
  static SCRIMP_INLINE void run(const uint8_t* codes, const int8_t* quads, int64_t stride, int16_t weight,
                                IntReg (&sum)[kRegs * kTokens]) {
    __m256i narrow[kRegs * kTokens];
    each<kQuads>([&](auto q) __attribute__((always_inline)) {
      const Quad rows = load(codes + q.value * kVectorBytes);
      each<kTokens>([&](auto t) __attribute__((always_inline)) {
        const __m256i x = broadcast(quads + q.value * stride + 4 * t.value);
        each<kRegs>([&](auto r) __attribute__((always_inline)) {
          add_pairs<q.value == 0>(narrow[t.value * kRegs + r.value], rows.rows[r.value], x);
        });
      });
    });
    each<kRegs * kTokens>([&](auto n) __attribute__((always_inline)) { widen(sum[n.value], narrow[n.value], weight); });
  }

  // 3 tokens x 16 rows: 6 sums of 16 bits and 6 of 32. Cost: vpmaddubsw and an addition per 32 products, per `hold` of
  // them vpmaddwd and an addition.
  template <int kRows, int kTokens>
  static SCRIMP_INLINE void sums(const uint8_t* codes, const int8_t* quads, int64_t stride, int64_t steps, int hold,
                                 const int32_t* start, IntReg (&sum)[kRows * kTokens]) {
    each<kRows * kTokens>(
        [&](auto n) __attribute__((always_inline)) { sum[n.value] = _mm256_set1_epi32(start[n.value / kRows]); });
    for (; steps > 0; --steps, codes += kRunBytes, quads += kStepQuads * stride) {
      if (hold == 0) {
        run<kTokens, 8>(codes, quads, stride, 1, sum);
        codes += kRunBytes;
        run<kTokens, 8>(codes, quads, stride, 16, sum);
      } else if (hold == 8) {
        run<kTokens, 8>(codes, quads, stride, 1, sum);
      } else if (hold == 4) {
        for (int64_t q = 0; q < kStepQuads; q += 4)
          run<kTokens, 4>(codes + q * kVectorBytes, quads + q * stride, stride, 1, sum);
      } else {
        for (int64_t q = 0; q < kStepQuads; q += 2)
          run<kTokens, 2>(codes + q * kVectorBytes, quads + q * stride, stride, 1, sum);
      }
    }
  }
};

#include "kernels/simd/linear_int8_decode.inl"
#include "kernels/simd/linear_int8_prefill.inl"

// Sums of inputs [begin, end) for each of 12 tokens; those past `width` are meaningless (the block is padded by 64
// inputs).
void sums_of(const int8_t* quads, int64_t width, int64_t begin, int64_t end, int32_t sums[16]) {
  const __m256i ones = _mm256_set1_epi8(1);
  __m256i sum[2] = {};
  for (int64_t k = begin; k < end; k += 4) {
    for (int h = 0; h < 2; ++h) {
      if (h == 1 && width <= 8) break;
      const int8_t* at = quads + k * width + h * 32;
      const __m256i x = h == 0 ? _mm256_loadu_si256(reinterpret_cast<const __m256i*>(at))
                               : _mm256_castsi128_si256(_mm_loadu_si128(reinterpret_cast<const __m128i*>(at)));
      widen(sum[h], _mm256_maddubs_epi16(ones, x));
    }
  }
  for (int h = 0; h < 2; ++h) _mm256_storeu_si256(reinterpret_cast<__m256i*>(sums + 8 * h), sum[h]);
}

}  // namespace

#include "kernels/simd/describe_pieces.inl"

void linear_int8(const Matrix& w, const Activations& x, int64_t tile_begin, int64_t tile_end, float* y,
                 int64_t y_stride, uint8_t* scratch) {
  if (x.tokens == 1) return decode_body(w, x, tile_begin, tile_end, y, scratch);
  prefill_body(w, x, tile_begin, tile_end, y, y_stride, scratch);
}

}  // namespace scrimp::avx2
