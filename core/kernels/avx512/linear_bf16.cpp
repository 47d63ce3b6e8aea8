// y = W x of bf16 weights as they are stored and activations rounded to bf16, by vdpbf16ps: two inputs at a time. The
// only file with this extension's flag; the contracts are in ../kernels.h.
//
// Error, of the activations that were rounded: K inputs take at most K + ceil(K / kBf16Cols) additions, products are
// exact, and what is below the normal range counts as zero (in weights, activations and sums):
// |y - exact| <= gamma(K + ceil(K / kBf16Cols)) * sum_k |w x| + 2^-126 sum_k (|w| + |x| + 2).
#include "kernels/avx512/isa.h"
#include "kernels/avx512/unpack.h"
#include "kernels/avx512/vec.h"

namespace scrimp::avx512::bf16 {
namespace {

// Two neighbouring inputs, of every row or of one token.
struct Pairs {
  __m512bh v;
};

inline Pairs broadcast(uint32_t pair) { return {(__m512bh)_mm512_set1_epi32(static_cast<int>(pair))}; }
inline Vec broadcast(float x) { return avx512::broadcast(x); }

inline Vec fma(Pairs weights, Pairs x, Vec sum) { return {_mm512_dpbf16_ps(sum.v, weights.v, x.v)}; }

}  // namespace

#include "kernels/simd/product.inl"

namespace {

constexpr int64_t kBf16Cols = 640;  // of two tiles 40 KB

// Tiles as they are stored: a vector holds two inputs of 16 rows.
struct StoredPanel {
  const uint8_t* vectors;
  int64_t tile_bytes;

  Pairs at(int64_t k, int64_t r) const {
    return {(__m512bh)_mm512_loadu_si512(vectors + r / kTileRows * tile_bytes + k * kVectorBytes)};
  }
};

}  // namespace

void round(const float* x, int64_t n, uint32_t* pairs) {
  auto* to = reinterpret_cast<uint16_t*>(pairs);
  for (int64_t i = 0; i < n; i += kLanes) {
    const Vec numbers = n - i < kLanes ? load_first(x + i, n - i, broadcast(0.0F)) : load(x + i);
    const auto rounded = (__m256i)_mm512_cvtneps_pbh(numbers.v);
    _mm256_mask_storeu_epi16(to + i, first(n - i < kLanes ? n - i : kLanes), rounded);
  }
}

void linear(const Matrix& w, const uint32_t* x, int64_t x_stride, int64_t tokens, int64_t tile_begin, int64_t tile_end,
            float* y, int64_t y_stride) {
  const int64_t tile_bytes = w.vectors[0] * kVectorBytes;
  each_panel(w, tokens, tile_begin, tile_end, kBf16Cols, [&](int64_t tile, int64_t rows, int64_t k, int64_t inner) {
    const StoredPanel panel{w.plane[0] + tile * tile_bytes + k / 2 * kVectorBytes, tile_bytes};
    product(panel, rows, inner / 2, x + k / 2, x_stride, tokens, y + tile * kTileRows, y_stride, k > 0);
  });
}

// 16 sums of 16 lanes and two products, twice.
int64_t peak(int64_t rounds) {
  static_assert(2 * 16 * 32 == kPeakOps);
  Vec sums[16] = {};
  const Pairs w = broadcast(0x3F003F00u), x = broadcast(0x3E803E80u);
  for (int64_t i = 0; i < 2 * rounds; ++i) {
    each<16>([&](auto n) __attribute__((always_inline)) {
      __m512 sum = sums[n.value].v;
      asm("vdpbf16ps %2, %1, %0" : "+v"(sum) : "v"(w.v), "v"(x.v));
      sums[n.value].v = sum;
    });
  }
  each<15>([&](auto n) __attribute__((always_inline)) { sums[0] = sums[0] + sums[n.value + 1]; });
  return static_cast<int64_t>(sum(sums[0]) * 1e-9F);
}

}  // namespace scrimp::avx512::bf16
