// Quantizing activations to int8 with AVX-512.
#include "kernels/avx512/intrinsics.h"
#include "kernels/avx512/isa.h"
#include "kernels/avx512/unpack.h"

namespace scrimp::avx512 {
namespace {

__mmask16 lanes(int64_t left) { return static_cast<__mmask16>(left >= 16 ? 0xFFFF : (1 << left) - 1); }

// Below, whole vectors first: a mask for every load, and sixteen lanes reduced as such, take a quarter longer.

// The largest |x| of n floats, compared as unsigned integers: these order like the floats, with infinity and then NaN
// on top.
float largest_magnitude(const float* x, int64_t n) {
  const __m512i magnitude = _mm512_set1_epi32(0x7FFFFFFF);
  __m512i largest = _mm512_setzero_si512();
  int64_t k = 0;
  for (; k + 16 <= n; k += 16) {
    largest = _mm512_max_epu32(largest, _mm512_and_si512(_mm512_loadu_si512(x + k), magnitude));
  }
  if (k < n) {
    const __m512i rest = _mm512_maskz_loadu_epi32(lanes(n - k), x + k);
    largest = _mm512_max_epu32(largest, _mm512_and_si512(rest, magnitude));
  }
  __m256i eight = _mm256_max_epu32(_mm512_castsi512_si256(largest), _mm512_extracti64x4_epi64(largest, 1));
  __m128i four = _mm_max_epu32(_mm256_castsi256_si128(eight), _mm256_extracti128_si256(eight, 1));
  four = _mm_max_epu32(four, _mm_shuffle_epi32(four, 0x4E));
  four = _mm_max_epu32(four, _mm_shuffle_epi32(four, 0xB1));
  return _mm_cvtss_f32(_mm_castsi128_ps(four));
}

// Up to four quads of one token, `stride` bytes apart.
inline void store_quads(int8_t* out, int64_t stride, int64_t quads, __m512i codes) {
  const __m128i bytes = _mm512_cvtepi32_epi8(codes);
  if (quads >= 4 && stride == 4) {
    _mm_storeu_si128(reinterpret_cast<__m128i*>(out), bytes);
    return;
  }
  _mm_storeu_si32(out, bytes);
  if (quads > 1) _mm_storeu_si32(out + stride, _mm_bsrli_si128(bytes, 4));
  if (quads > 2) _mm_storeu_si32(out + 2 * stride, _mm_bsrli_si128(bytes, 8));
  if (quads > 3) _mm_storeu_si32(out + 3 * stride, _mm_bsrli_si128(bytes, 12));
}

// n floats -> codes; returns their sum.
int32_t store_codes(const float* x, int64_t n, float scale, int8_t* out, int64_t stride) {
  const __m512 divisor = _mm512_set1_ps(scale);
  const __m512 limit = _mm512_set1_ps(127.0f);
  const __m512 minus_limit = _mm512_set1_ps(-127.0f);
  // limited as floats: beyond 2^31 the conversion would change the sign
  const auto codes_of = [&](__m512 numbers) __attribute__((always_inline)) {
    return _mm512_cvtps_epi32(_mm512_max_ps(_mm512_min_ps(_mm512_div_ps(numbers, divisor), limit), minus_limit));
  };
  __m512i sum = _mm512_setzero_si512();
  int64_t k = 0;
  for (; k + 16 <= n; k += 16) {
    const __m512i codes = codes_of(_mm512_loadu_ps(x + k));
    sum = _mm512_add_epi32(sum, codes);
    store_quads(out + k / 4 * stride, stride, 4, codes);
  }
  if (k < n) {
    const __m512i codes = codes_of(_mm512_maskz_loadu_ps(lanes(n - k), x + k));
    sum = _mm512_add_epi32(sum, codes);
    store_quads(out + k / 4 * stride, stride, (n - k + 3) / 4, codes);
  }
  return _mm512_reduce_add_epi32(sum);
}

void store_zeros(int8_t* out, int64_t stride, int64_t quads) {
  for (int64_t i = 0; i < quads; ++i) _mm_storeu_si32(out + i * stride, _mm_setzero_si128());
}

}  // namespace

#include "kernels/simd/quantize.inl"

namespace {

constexpr int64_t kDozen = 12;  // blocks that are quantized together
constexpr int64_t kDozenInputs = 32;
static_assert(kDozen == kTokenBlock);

// What the 16 lanes of each of 12 vectors come to, in lanes 0 .. 11 of one: neighbours are brought together and folded,
// first inside 128 bits, four vectors at a time.
template <class Fold>
SCRIMP_INLINE __m512i fold_four(const __m512i* v, Fold fold) {
  const auto two = [&](__m512i a, __m512i b) __attribute__((always_inline)) {
    return fold(_mm512_unpacklo_epi32(a, b), _mm512_unpackhi_epi32(a, b));
  };
  const __m512i ab = two(v[0], v[1]), cd = two(v[2], v[3]);
  return fold(_mm512_unpacklo_epi64(ab, cd), _mm512_unpackhi_epi64(ab, cd));
}

template <class Fold>
SCRIMP_INLINE __m512i fold_lanes(__m512i a, __m512i b, __m512i c, Fold fold) {
  const __m512i ab = fold(_mm512_shuffle_i32x4(a, b, 0x44), _mm512_shuffle_i32x4(a, b, 0xEE));
  const __m512i cc = fold(_mm512_shuffle_i32x4(c, c, 0x44), _mm512_shuffle_i32x4(c, c, 0xEE));
  return fold(_mm512_shuffle_i32x4(ab, cc, 0x88), _mm512_shuffle_i32x4(ab, cc, 0xDD));
}

// Blocks of 32 inputs that each have a scale, `count` of at most 12, block b at x + b * apart; of 12 tokens (kTokens),
// whose quads are interleaved, or one behind the other. False, and nothing is written, where a number is not finite or
// a scale is denormal: that is left to quantize_blocks.
template <bool kTokens>
SCRIMP_INLINE bool quantize_dozen(const float* x, int64_t apart, int64_t count, int8_t* out, float* scales,
                                  int32_t* sums) {
  const auto at = [&](int b) __attribute__((always_inline)) { return x + (b < count ? b : 0) * apart; };
  const __m512i no_sign = _mm512_set1_epi32(0x7FFFFFFF);
  __m512i largest[kDozen];
  each<kDozen>([&](auto b) __attribute__((always_inline)) {
    const float* from = at(b.value);
    largest[b.value] = _mm512_max_epu32(_mm512_and_si512(_mm512_loadu_si512(from), no_sign),
                                        _mm512_and_si512(_mm512_loadu_si512(from + 16), no_sign));
  });
  const auto larger = [](__m512i a, __m512i b) __attribute__((always_inline)) { return _mm512_max_epu32(a, b); };
  const __m512i peaks =
      fold_lanes(fold_four(largest, larger), fold_four(largest + 4, larger), fold_four(largest + 8, larger), larger);
  const __m512 scale = _mm512_div_ps(_mm512_castsi512_ps(peaks), _mm512_set1_ps(127.0f));
  const __mmask16 none = _mm512_cmp_ps_mask(scale, _mm512_setzero_ps(), _CMP_EQ_OQ);
  const __mmask16 small = _mm512_cmp_ps_mask(scale, _mm512_set1_ps(__FLT_MIN__), _CMP_LT_OQ);
  const __mmask16 not_finite = _mm512_cmp_ps_mask(_mm512_castsi512_ps(peaks), _mm512_set1_ps(__FLT_MAX__), _CMP_NLE_UQ);
  if ((not_finite | (small & ~none)) != 0) return false;
  alignas(64) float divisors[16];  // x / infinity is 0
  _mm512_store_ps(divisors, _mm512_mask_mov_ps(scale, none, _mm512_set1_ps(__builtin_inff())));

  // No quotient is beyond 127 here, so packing changes no code. A pair of blocks a and b has in each 128 bits quads
  // a[l], a[4 + l], b[l], b[4 + l].
  __m512i pairs[kDozen / 2];
  each<kDozen / 2>([&](auto p) __attribute__((always_inline)) {
    const auto words = [&](int b) __attribute__((always_inline)) {
      const __m512 divisor = _mm512_set1_ps(divisors[b]);
      const auto codes = [&](const float* from) __attribute__((always_inline)) {
        return _mm512_cvtps_epi32(_mm512_div_ps(_mm512_loadu_ps(from), divisor));
      };
      return _mm512_packs_epi32(codes(at(b)), codes(at(b) + 16));
    };
    pairs[p.value] = _mm512_packs_epi16(words(2 * p.value), words(2 * p.value + 1));
  });

  const __m512i ones = _mm512_set1_epi8(1);
  __m512i found[kDozen / 4];
  each<kDozen / 4>([&](auto j) __attribute__((always_inline)) {
    const __m512 a = _mm512_castsi512_ps(pairs[2 * j.value]), b = _mm512_castsi512_ps(pairs[2 * j.value + 1]);
    const __m512i low = _mm512_castps_si512(_mm512_shuffle_ps(a, b, 0x88));  // quads l of four blocks
    const __m512i high = _mm512_castps_si512(_mm512_shuffle_ps(a, b, 0xDD));
    found[j.value] = _mm512_dpbusd_epi32(_mm512_dpbusd_epi32(_mm512_setzero_si512(), ones, low), ones, high);
    if constexpr (kTokens) {
      each<4>([&](auto l) __attribute__((always_inline)) {
        int8_t* to = out + l.value * 4 * kDozen + 16 * j.value;
        _mm_storeu_si128(reinterpret_cast<__m128i*>(to), _mm512_extracti32x4_epi32(low, l.value));
        _mm_storeu_si128(reinterpret_cast<__m128i*>(to + 16 * kDozen), _mm512_extracti32x4_epi32(high, l.value));
      });
    }
  });
  if constexpr (!kTokens) {
    const __m512i order = _mm512_setr_epi32(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15);
    each<kDozen / 2>([&](auto p) __attribute__((always_inline)) {
      const int64_t left = count - 2 * p.value;
      const __mmask16 here = left >= 2 ? 0xFFFF : left == 1 ? 0x00FF : 0;
      _mm512_mask_storeu_epi32(out + 64 * p.value, here, _mm512_permutexvar_epi32(order, pairs[p.value]));
    });
  }
  const auto plus = [](__m512i a, __m512i b) __attribute__((always_inline)) { return _mm512_add_epi32(a, b); };
  const auto written = static_cast<__mmask16>((1 << count) - 1);
  _mm512_mask_storeu_epi32(sums, written, fold_lanes(found[0], found[1], found[2], plus));
  _mm512_mask_storeu_ps(scales, written, scale);
  return true;
}

}  // namespace

void quantize(const float* x, int64_t stride, int64_t block_begin, int64_t block_end, const Activations& a) {
  const bool by_dozens = a.block == kDozenInputs && a.scale_block == kDozenInputs && a.fixed_scale == 0.0f;
  const int64_t whole = by_dozens ? a.cols / kDozenInputs : 0;  // blocks of 32 inputs
  for (int64_t first = block_begin * kTokenBlock; first < block_end * kTokenBlock; first += kTokenBlock) {
    const int64_t width = a.tokens - first < kTokenBlock ? a.tokens - first : kTokenBlock;
    const float* rows = x + first * stride;
    int8_t* quads = a.quads + first * a.cols_padded;
    float* scales = a.scales + first * a.blocks;
    int32_t* sums = a.sums + first * a.blocks;
    int64_t done = 0;
    if (width == kDozen) {
      for (; done < whole; ++done) {
        if (quantize_dozen<true>(rows + done * kDozenInputs, stride, kDozen, quads + done * kDozenInputs * kDozen,
                                 scales + done * kDozen, sums + done * kDozen))
          continue;
        for (int64_t t = 0; t < width; ++t) quantize_blocks(rows + t * stride, a, first, width, t, done, done + 1);
      }
    } else if (width == 1) {
      for (int64_t count; done < whole; done += count) {
        count = whole - done < kDozen ? whole - done : kDozen;
        if (!quantize_dozen<false>(rows + done * kDozenInputs, kDozenInputs, count, quads + done * kDozenInputs,
                                   scales + done, sums + done))
          quantize_blocks(rows, a, first, width, 0, done, done + count);
      }
    }
    for (int64_t t = 0; t < width; ++t) {
      quantize_blocks(rows + t * stride, a, first, width, t, done, a.blocks);
      pad_quads(a, first, width, t);
    }
  }
}

}  // namespace scrimp::avx512
