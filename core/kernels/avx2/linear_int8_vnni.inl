// Integer matrix products of processors with vpdpbusd: four products of bytes into 32 bits. Included in the namespace
// of one of its encodings, which SCRIMP_DPBUSD names; the rest is AVX2, in sixteen registers, for both.
namespace {

// sum += codes * activations, exact in int32: bytes unsigned by signed, no saturation.
SCRIMP_INLINE void dot(__m256i& sum, __m256i codes, __m256i x) {
  __m256i next = sum;  // a value, not memory: else the element of an array is stored after each product
  asm(SCRIMP_DPBUSD " %2, %1, %0" : "+x"(next) : "x"(codes), "x"(x));
  sum = next;
}

struct Dot {
  Integers sum;
  __m256i apart[kRegs];

  SCRIMP_INLINE void begin(int32_t start) {
    each<kRegs>([&](auto r) __attribute__((always_inline)) { sum.rows[r.value] = _mm256_set1_epi32(start); });
  }

  template <int kReg, int kQuad, int kMost, int kRun>
  SCRIMP_INLINE void add(__m256i codes, FourQuads x) {
    dot(sum.rows[kReg], codes, broadcast(x + 4 * (kQuad % 4)));
  }

  template <int kReg, int kQuad, int kMost, int kLane>
  SCRIMP_INLINE void add_apart(__m256i codes, FourQuads x) {
    if constexpr (kQuad == 0) apart[kReg] = _mm256_setzero_si256();
    dot(apart[kReg], codes, broadcast(x + 4 * kLane));
    if constexpr (kQuad == kStepQuads - 1) sum.rows[kReg] = _mm256_add_epi32(sum.rows[kReg], apart[kReg]);
  }

  SCRIMP_INLINE Integers total() const { return sum; }
};

struct Block {
  static constexpr int kSizes[] = {1, 2, 4, 6};
  static constexpr int rows_of(int) { return kRegs; }
  static constexpr int64_t kRegBytes = 32, kTokenBytes = 4;
  static constexpr bool kArranged = false;
  static constexpr int64_t step_bytes(int64_t stride) { return kStepQuads * stride; }
  static constexpr int64_t panel_bytes(int) { return kStepQuads * kVectorBytes; }

  template <int kMost>
  static SCRIMP_INLINE void store_step(uint8_t* to, const Quad (&codes)[kStepQuads]) {
    each<kStepQuads>([&](auto q)
                         __attribute__((always_inline)) { store(to + q.value * kVectorBytes, codes[q.value]); });
  }

  // 6 tokens x 16 rows: 12 sums, and 8 loads for 12 dot products.
  template <int kRows, int kTokens>
  static SCRIMP_INLINE void sums(const uint8_t* codes, const int8_t* quads, int64_t stride, int64_t steps, int,
                                 const int32_t* start, IntReg (&sum)[kRows * kTokens]) {
    each<kRows * kTokens>(
        [&](auto n) __attribute__((always_inline)) { sum[n.value] = _mm256_set1_epi32(start[n.value / kRows]); });
    do {  // a whole step at a time, which is as fast as a quad at a time
      each<kStepQuads>([&](auto q) __attribute__((always_inline)) {
        const Quad rows = load(codes + q.value * kVectorBytes);
        each<kTokens>([&](auto t) __attribute__((always_inline)) {
          const __m256i x = broadcast(quads + 4 * t.value);
          each<kRows>([&](auto r) __attribute__((always_inline)) {
            dot(sum[t.value * kRows + r.value], rows.rows[r.value], x);
          });
        });
        quads += stride;
      });
      codes += kStepQuads * kVectorBytes;
    } while (--steps > 0);
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

// 8 sums of 8 lanes, four products each, four times.
int64_t int8_peak(int64_t rounds) {
  static_assert(4 * 8 * 32 == kPeakOps);
  __m256i sums[8] = {};
  const __m256i codes = _mm256_set1_epi8(3), x = _mm256_set1_epi8(-5);
  for (int64_t i = 0; i < 4 * rounds; ++i) {
    each<8>([&](auto n) __attribute__((always_inline)) { dot(sums[n.value], codes, x); });
  }
  __m256i all = _mm256_setzero_si256();
  each<8>([&](auto n) __attribute__((always_inline)) { all = _mm256_xor_si256(all, sums[n.value]); });
  return _mm256_extract_epi64(all, 0) ^ _mm256_extract_epi64(all, 1) ^ _mm256_extract_epi64(all, 2) ^
         _mm256_extract_epi64(all, 3);
}
