// From stored vectors to unsigned codes of eight bits, of a table to its levels: 16 rows x 4 inputs ("a quad") in two
// registers of 8 rows. A step is 32 inputs: 8 quads, a whole number of vectors in every plane.
#pragma once

#include <immintrin.h>

#include "kernels/kernels.h"

#define SCRIMP_INLINE inline __attribute__((always_inline))

namespace scrimp::avx2 {
namespace {

constexpr int kStepQuads = 8;
constexpr int64_t kStepCols = 32;
constexpr int kRegs = 2;  // registers of a quad

#include "kernels/simd/each.inl"

struct Quad {
  __m256i rows[kRegs];  // rows 8i .. 8i + 7
};

SCRIMP_INLINE __m256i load_reg(const uint8_t* p) { return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)); }
SCRIMP_INLINE void store(uint8_t* p, __m256i codes) { _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), codes); }

SCRIMP_INLINE Quad load(const uint8_t* p) { return {{load_reg(p), load_reg(p + 32)}}; }

SCRIMP_INLINE void store(uint8_t* p, const Quad& v) {
  store(p, v.rows[0]);
  store(p + 32, v.rows[1]);
}

// Field kIndex of kBits bits of every byte, moved to bits kTo and up.
template <int kBits, int kIndex, int kTo>
SCRIMP_INLINE __m256i field(__m256i v) {
  constexpr int kDown = kBits * kIndex - kTo;
  if constexpr (kDown > 0) v = _mm256_srli_epi16(v, kDown);
  if constexpr (kDown < 0) v = _mm256_slli_epi16(v, -kDown);
  if constexpr (kBits < 8) v = _mm256_and_si256(v, _mm256_set1_epi8(static_cast<char>(((1 << kBits) - 1) << kTo)));
  return v;
}

// kLow bits in plane 0 and kHigh more in plane 1; kUp: codes count 2^kUp times. f(Index<quad>, codes) for the 8 quads
// of a step.
template <int kLow, int kHigh, int kUp = 0>
struct Planes {
  static constexpr int vectors[2] = {kLow, kHigh};
  static constexpr int most = ((1 << (kLow + kHigh)) - 1) << kUp;

  template <class F>
  SCRIMP_INLINE void step(const uint8_t* const p[2], F f) const {
    each<kStepQuads>([&](auto q) __attribute__((always_inline)) {
      constexpr int kPerLow = 8 / kLow;
      Quad codes = load(p[0] + q.value / kPerLow * kVectorBytes);
      each<kRegs>([&](auto r) __attribute__((always_inline)) {
        __m256i& v = codes.rows[r.value];
        v = field<kLow, q.value % kPerLow, kUp>(v);
        if constexpr (kHigh > 0) {
          constexpr int kPerHigh = 8 / kHigh;
          const __m256i high = load_reg(p[1] + q.value / kPerHigh * kVectorBytes + 32 * r.value);
          v = _mm256_or_si256(v, field<kHigh, q.value % kPerHigh, kLow + kUp>(high));
        }
      });
      f(q, codes);
    });
  }
};

using Bytes = Planes<8, 0>;
using TwiceBits = Planes<1, 0, 1>;  // symmetric binary: step 2

// Levels of a table, by codes of kLow + kHigh bits.
template <int kLow, int kHigh>
struct Levels {
  static constexpr int vectors[2] = {kLow, kHigh};
  static constexpr int most = 255;
  __m256i table;

  explicit Levels(const Matrix& w)
      : table(_mm256_broadcastsi128_si256(_mm_loadu_si128(reinterpret_cast<const __m128i*>(w.levels)))) {}

  template <class F>
  SCRIMP_INLINE void step(const uint8_t* const p[2], F f) const {
    Planes<kLow, kHigh>{}.step(p, [&](auto q, Quad codes) __attribute__((always_inline)) {
      each<kRegs>([&](auto r) __attribute__((always_inline)) {
        codes.rows[r.value] = _mm256_shuffle_epi8(table, codes.rows[r.value]);
      });
      f(q, codes);
    });
  }
};

// Quads of codes up to `most` times activations up to 127 whose pairs (vpmaddubsw) fit into 16 bits: 8, 4, 2, or none.
constexpr int hold_of(int most) {
  int quads = kStepQuads;
  while (quads * 2 * most * 127 > 32767) quads /= 2;
  return quads;
}

constexpr int32_t bias_of(const Matrix&) { return 0; }

constexpr int kMostTrit = 2;

// Five trits per byte: byte = t0 + 3 t1 + 9 t2 + 27 t3 + 81 t4, 0..242. f(Index<register>, Index<0..4>, codes).
//   q = byte / 27 by a 16-bit multiplication (2428 / 65536, exact below 3276): 0..8 holds t3, t4 (tables of 16)
//   r = byte - 27 q: 0..26; t2 = (r > 8) + (r > 17); r - 9 t2: 0..8 holds t0, t1 (the same tables)
template <class F>
SCRIMP_INLINE void trits(const uint8_t* p, F f) {
  const auto table = [](int a, int b) __attribute__((always_inline)) {  // i -> a * (i % 3) + b * (i / 3), i = 0..8
    const auto at = [=](int i) { return static_cast<char>(a * (i % 3) + b * (i / 3)); };
    return _mm256_broadcastsi128_si256(
        _mm_setr_epi8(at(0), at(1), at(2), at(3), at(4), at(5), at(6), at(7), at(8), 0, 0, 0, 0, 0, 0, 0));
  };
  const __m256i ninth = _mm256_set1_epi16(2428);
  const __m256i one = _mm256_set1_epi8(1);
  each<kRegs>([&](auto i) __attribute__((always_inline)) {
    const __m256i b = load_reg(p + 32 * i.value);
    const __m256i even = _mm256_mulhi_epu16(_mm256_and_si256(b, _mm256_set1_epi16(255)), ninth);
    const __m256i odd = _mm256_mulhi_epu16(_mm256_srli_epi16(b, 8), ninth);
    const __m256i q = _mm256_or_si256(even, _mm256_slli_epi16(odd, 8));
    const __m256i r = _mm256_sub_epi8(b, _mm256_shuffle_epi8(table(27, 81), q));
    const __m256i over_one = _mm256_min_epu8(_mm256_subs_epu8(r, _mm256_set1_epi8(8)), one);
    const __m256i over_two = _mm256_min_epu8(_mm256_subs_epu8(r, _mm256_set1_epi8(17)), one);
    const __m256i t2 = _mm256_add_epi8(over_one, over_two);
    const __m256i low = _mm256_sub_epi8(r, _mm256_shuffle_epi8(table(9, 27), t2));
    f(i, Index<0>{}, _mm256_shuffle_epi8(table(1, 0), low));
    f(i, Index<1>{}, _mm256_shuffle_epi8(table(0, 1), low));
    f(i, Index<2>{}, t2);
    f(i, Index<3>{}, _mm256_shuffle_epi8(table(1, 0), q));
    f(i, Index<4>{}, _mm256_shuffle_epi8(table(0, 1), q));
  });
}

// The five quads of a vector of trits, one after the other.
SCRIMP_INLINE void unpack_vector(const uint8_t* p, uint8_t* quads) {
  trits(p, [&](auto r, auto t, __m256i codes)
               __attribute__((always_inline)) { store(quads + t.value * kVectorBytes + 32 * r.value, codes); });
}

#include "kernels/simd/planes.inl"

}  // namespace
}  // namespace scrimp::avx2
