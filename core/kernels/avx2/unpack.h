// From stored vectors to unsigned codes of at most four bits: 16 rows x 4 inputs ("a quad") in two halves of 8 rows.
//
// vpmaddubsw adds two products in 16 bits, and eight quads of 4-bit codes still fit: 8 * 2 * 15 * 127 = 30480 < 2^15.
// So every format is one or two parts of at most four bits, each with the weight its codes count for; the weight is
// applied by the vpmaddwd that widens to 32 bits. A step is 32 inputs: 8 quads, a whole number of vectors in every
// plane.
//   int2, int4, binary: one part.    int3, int5, int6: one part per plane.    int8, and levels of tables: their low and
//   their high nibble.
#pragma once

#include <immintrin.h>

#include "kernels/kernels.h"

#define SCRIMP_INLINE inline __attribute__((always_inline))

namespace scrimp::avx2 {
namespace {

constexpr int kStepQuads = 8;
constexpr int64_t kStepCols = 32;

template <int I>
struct Index {
  static constexpr int value = I;
};

// f(Index<0>), ..., f(Index<N - 1>): a loop whose counter is a constant, so that arrays indexed by it live in
// registers.
template <int N, int I = 0, class F>
SCRIMP_INLINE void each(F&& f) {
  if constexpr (I < N) {
    f(Index<I>{});
    each<N, I + 1>(f);
  }
}

struct Vector {
  __m256i half[2];  // rows 0..7 and 8..15
};

SCRIMP_INLINE Vector load(const uint8_t* p) {
  const __m256i* at = reinterpret_cast<const __m256i*>(p);
  return {{_mm256_loadu_si256(at), _mm256_loadu_si256(at + 1)}};
}

SCRIMP_INLINE void store(uint8_t* p, const Vector& v) {
  __m256i* at = reinterpret_cast<__m256i*>(p);
  _mm256_storeu_si256(at, v.half[0]);
  _mm256_storeu_si256(at + 1, v.half[1]);
}

// The codes at bits [kShift, kShift + log2(kMask + 1)) of each field of a plane of kBits.
template <int kPlane, int kBits, int kShift, int kMask, int kWeight>
struct Part {
  static constexpr int plane = kPlane;
  static constexpr int weight = kWeight;

  template <class F>
  static SCRIMP_INLINE void quads(const uint8_t* p, F f) {
    each<kStepQuads>([&](auto q) __attribute__((always_inline)) {
      constexpr int kPerVector = 8 / kBits;
      constexpr int kDown = q.value % kPerVector * kBits + kShift;
      Vector v = load(p + q.value / kPerVector * kVectorBytes);
      each<2>([&](auto h) __attribute__((always_inline)) {
        if constexpr (kDown != 0) v.half[h.value] = _mm256_srli_epi16(v.half[h.value], kDown);
        v.half[h.value] = _mm256_and_si256(v.half[h.value], _mm256_set1_epi8(kMask));
      });
      f(q, v);
    });
  }
};

// A format: vectors of each plane in one step, and its parts.
template <int kVectors0, int kVectors1, class First, class Second = First>
struct Format {
  static constexpr int vectors[2] = {kVectors0, kVectors1};
  static constexpr int parts = First::weight == Second::weight ? 1 : 2;

  // f(Index<part>, Index<quad>, codes), part by part
  template <class F>
  SCRIMP_INLINE void step(const uint8_t* const p[2], F f) const {
    First::quads(p[First::plane], [&](auto q, const Vector& v) __attribute__((always_inline)) { f(Index<0>{}, q, v); });
    if constexpr (parts == 2) {
      Second::quads(p[Second::plane],
                    [&](auto q, const Vector& v) __attribute__((always_inline)) { f(Index<1>{}, q, v); });
    }
  }

  static SCRIMP_INLINE __m256i weight(int part) {
    return _mm256_set1_epi16(static_cast<int16_t>(part == 0 ? First::weight : Second::weight));
  }
};

// Levels of a table, by codes of kLow bits in plane 0 and kHigh bits in plane 1: a look-up for each of their nibbles.
template <int kLow, int kHigh>
struct Levels {
  static constexpr int vectors[2] = {kLow, kHigh};
  static constexpr int parts = 2;
  __m256i nibbles[parts];

  explicit Levels(const Matrix& w) {
    alignas(16) uint8_t split[parts][16];
    for (int i = 0; i < 16; ++i) {
      split[0][i] = w.levels[i] & 15;
      split[1][i] = w.levels[i] >> 4;
    }
    for (int part = 0; part < parts; ++part) {
      nibbles[part] = _mm256_broadcastsi128_si256(_mm_load_si128(reinterpret_cast<const __m128i*>(split[part])));
    }
  }

  template <class F>
  SCRIMP_INLINE void step(const uint8_t* const p[2], F f) const {
    const auto look_up = [&](auto q, const Vector& codes) __attribute__((always_inline)) {
      each<parts>([&](auto part) __attribute__((always_inline)) {
        f(part, q,
          Vector{{_mm256_shuffle_epi8(nibbles[part.value], codes.half[0]),
                  _mm256_shuffle_epi8(nibbles[part.value], codes.half[1])}});
      });
    };
    Part<0, kLow, 0, (1 << kLow) - 1, 1>::quads(p[0], [&](auto q, Vector codes) __attribute__((always_inline)) {
      if constexpr (kHigh > 0) {
        constexpr int kPerVector = 8 / kHigh;
        constexpr int kDown = kHigh * (q.value % kPerVector) - kLow;
        const Vector high = load(p[1] + q.value / kPerVector * kVectorBytes);
        each<2>([&](auto h) __attribute__((always_inline)) {
          const __m256i moved =
              kDown < 0 ? _mm256_slli_epi16(high.half[h.value], -kDown) : _mm256_srli_epi16(high.half[h.value], kDown);
          const __m256i mask = _mm256_set1_epi8(((1 << kHigh) - 1) << kLow);
          codes.half[h.value] = _mm256_or_si256(codes.half[h.value], _mm256_and_si256(moved, mask));
        });
      }
      look_up(q, codes);
    });
  }

  static SCRIMP_INLINE __m256i weight(int part) { return _mm256_set1_epi16(static_cast<int16_t>(part == 0 ? 1 : 16)); }
};

using Int2 = Format<2, 0, Part<0, 2, 0, 3, 1>>;
using Int3 = Format<2, 1, Part<0, 2, 0, 3, 1>, Part<1, 1, 0, 1, 4>>;
using Int4 = Format<4, 0, Part<0, 4, 0, 15, 1>>;
using Int5 = Format<4, 1, Part<0, 4, 0, 15, 1>, Part<1, 1, 0, 1, 16>>;
using Int6 = Format<4, 2, Part<0, 4, 0, 15, 1>, Part<1, 2, 0, 3, 16>>;
using Int8 = Format<8, 0, Part<0, 8, 0, 15, 1>, Part<0, 8, 4, 15, 16>>;
using Bit = Format<1, 0, Part<0, 1, 0, 1, 1>>;
using TwiceBit = Format<1, 0, Part<0, 1, 0, 1, 2>>;  // symmetric binary: step 2

// Five trits per byte: byte = t0 + 3 t1 + 9 t2 + 27 t3 + 81 t4, 0..242. f(Index<0..4>, codes).
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
  const Vector bytes = load(p);
  Vector t[5];
  each<2>([&](auto half) __attribute__((always_inline)) {
    constexpr int h = half.value;
    const __m256i b = bytes.half[h];
    const __m256i even = _mm256_mulhi_epu16(_mm256_and_si256(b, _mm256_set1_epi16(255)), ninth);
    const __m256i odd = _mm256_mulhi_epu16(_mm256_srli_epi16(b, 8), ninth);
    const __m256i q = _mm256_or_si256(even, _mm256_slli_epi16(odd, 8));
    t[3].half[h] = _mm256_shuffle_epi8(table(1, 0), q);
    t[4].half[h] = _mm256_shuffle_epi8(table(0, 1), q);
    const __m256i r = _mm256_sub_epi8(b, _mm256_shuffle_epi8(table(27, 81), q));
    const __m256i over_one = _mm256_min_epu8(_mm256_subs_epu8(r, _mm256_set1_epi8(8)), one);
    const __m256i over_two = _mm256_min_epu8(_mm256_subs_epu8(r, _mm256_set1_epi8(17)), one);
    t[2].half[h] = _mm256_add_epi8(over_one, over_two);
    const __m256i low = _mm256_sub_epi8(r, _mm256_shuffle_epi8(table(9, 27), t[2].half[h]));
    t[0].half[h] = _mm256_shuffle_epi8(table(1, 0), low);
    t[1].half[h] = _mm256_shuffle_epi8(table(0, 1), low);
  });
  each<5>([&](auto i) __attribute__((always_inline)) { f(i, t[i.value]); });
}

// f(format) for the planes of w, which is not ternary.
template <class F>
SCRIMP_INLINE void with_format(const Matrix& w, F f) {
  if (w.element == Element::kTable) {
    if (w.bits == 2) return f(Levels<2, 0>(w));
    if (w.bits == 3) return f(Levels<2, 1>(w));
    return f(Levels<4, 0>(w));
  }
  if (w.element == Element::kBinary) {
    if (w.mins == nullptr) return f(TwiceBit{});
    return f(Bit{});
  }
  switch (w.bits) {
    case 2:
      return f(Int2{});
    case 3:
      return f(Int3{});
    case 4:
      return f(Int4{});
    case 5:
      return f(Int5{});
    case 6:
      return f(Int6{});
    default:
      return f(Int8{});
  }
}

// The planes of one tile from input k (a multiple of 32) on.
template <class Format>
struct Cursor {
  const uint8_t* at[2] = {};
  int64_t left[2] = {};  // vectors

  Cursor(const Matrix& w, int64_t tile, int64_t k) {
    for (int p = 0; p < 2; ++p) {
      if (Format::vectors[p] == 0) continue;
      const int64_t done = k / kStepCols * Format::vectors[p];
      at[p] = w.plane[p] + (tile * w.vectors[p] + done) * kVectorBytes;
      left[p] = w.vectors[p] - done;
    }
  }

  SCRIMP_INLINE void advance() {
    each<2>([&](auto p) __attribute__((always_inline)) { at[p.value] += Format::vectors[p.value] * kVectorBytes; });
  }
};

// The vectors of a row's last, partial step, followed by zeros: read from here, not to read beyond the planes.
template <class Format>
struct Rest {
  alignas(64) uint8_t bytes[2][8 * kVectorBytes] = {};

  Rest(const Matrix& w, int64_t tile) {
    const Cursor<Format> from(w, tile, w.cols);
    for (int p = 0; p < 2; ++p) {
      for (int64_t v = 0; v < from.left[p]; ++v) {
        store(bytes[p] + v * kVectorBytes, load(from.at[p] + v * kVectorBytes));
      }
    }
  }
};

}  // namespace
}  // namespace scrimp::avx2
