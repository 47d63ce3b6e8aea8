// Integer matrix products: the choice between one token and many, and what both need to know of the activations.
#include "kernels/avx2/linear_int8.h"

namespace scrimp::avx2 {
namespace {

// Sums of inputs [begin, end) for each of 12 tokens; those past `width` are meaningless (the block is padded by 64
// inputs).
void sums_of(const int8_t* quads, int64_t width, int64_t begin, int64_t end, int32_t sums[16]) {
  const __m256i ones = _mm256_set1_epi8(1);
  Vector sum = {{_mm256_setzero_si256(), _mm256_setzero_si256()}};
  for (int64_t k = begin; k < end; k += 4) {
    for (int h = 0; h < 2; ++h) {
      if (h == 1 && width <= 8) break;
      const int8_t* at = quads + k * width + h * 32;
      const __m256i x = h == 0 ? _mm256_loadu_si256(reinterpret_cast<const __m256i*>(at))
                               : _mm256_castsi128_si256(_mm_loadu_si128(reinterpret_cast<const __m128i*>(at)));
      const __m256i pairs = _mm256_madd_epi16(_mm256_maddubs_epi16(ones, x), _mm256_set1_epi16(1));
      sum.half[h] = _mm256_add_epi32(sum.half[h], pairs);
    }
  }
  store(reinterpret_cast<uint8_t*>(sums), sum);
}

}  // namespace

void describe_pieces(const Matrix& w, const Activations& x, int64_t begin, int64_t end, int64_t first,
                     const Pieces& pieces) {
  const int64_t width = smaller(x.tokens - first, kTokenBlock);
  const bool per_block = x.block < w.cols;  // then pieces are whole blocks, and their sums are known
  const int64_t segment = segment_inputs(w, x);
  const int32_t zero = w.mins == nullptr ? w.zero : 0;
  const int8_t* quads = x.quads + first * x.cols_padded;
  Pieces to = pieces;
  for (int64_t k = begin; k < end;) {
    const int64_t group_begin = k / w.group * w.group;
    const int64_t group_end = end_of(k, w.group, end);
    for (int64_t t = 0; t < width; ++t) to.group_sums[t] = 0.0f;
    while (k < group_end) {
      const int64_t piece_end = smaller(group_begin + end_of(k - group_begin, segment, w.cols), group_end);
      const int64_t at = first * x.blocks + (per_block ? k / x.block * width : 0);
      int32_t computed[16];
      if (!per_block) sums_of(quads, width, k, piece_end, computed);
      const int32_t* sums = per_block ? x.sums + at : computed;
      for (int64_t t = 0; t < width; ++t) {
        to.start[t] = -zero * sums[t];
        to.scale[t] = x.scales[at + t];
        to.group_sums[t] += x.scales[at + t] * static_cast<float>(sums[t]);
      }
      to.start += width;
      to.scale += width;
      k = piece_end;
    }
    to.group_sums += width;
  }
}

void linear_int8(const Matrix& w, const Activations& x, int64_t tile_begin, int64_t tile_end, float* y,
                 int64_t y_stride, uint8_t* scratch) {
  if (x.tokens == 1) return linear_int8_decode(w, x, tile_begin, tile_end, y, scratch);
  linear_int8_prefill(w, x, tile_begin, tile_end, y, y_stride, scratch);
}

}  // namespace scrimp::avx2
