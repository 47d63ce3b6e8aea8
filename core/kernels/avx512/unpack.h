// From stored vectors to unsigned codes in registers, of a table to its levels: one vector of 16 rows x 4 inputs ("a
// quad") at a time.
//
// A plane of p bits holds 8/p quads per vector: shift by p*i, mask. Each format below walks one step of 32 inputs, the
// smallest number that is a whole number of vectors in each of its planes, and calls f(Index<q>, codes) for its 8
// quads. Cost per quad: one shift and one mask (two of each for two planes) beside the load; nothing is stored.
#pragma once

#include "kernels/avx512/intrinsics.h"
#include "kernels/kernels.h"

#define SCRIMP_INLINE inline __attribute__((always_inline))

namespace scrimp::avx512 {
namespace {

#include "kernels/simd/each.inl"

SCRIMP_INLINE __m512i load(const uint8_t* p, int64_t vector) { return _mm512_loadu_si512(p + vector * kVectorBytes); }

// Loaded once: without this GCC reads the vector from memory again for each of its fields.
SCRIMP_INLINE __m512i load_once(const uint8_t* p, int64_t vector) {
  __m512i v = load(p, vector);
  asm("" : "+v"(v));
  return v;
}

// Bits [shift, shift + 8) of each byte's neighbourhood; a negative shift moves up. What crosses bytes is masked by the
// caller.
template <int kShift>
SCRIMP_INLINE __m512i shifted(__m512i v) {
  if constexpr (kShift == 0)
    return v;
  else if constexpr (kShift > 0)
    return _mm512_srli_epi16(v, kShift);
  else
    return _mm512_slli_epi16(v, -kShift);
}

// One plane of kBits, kFields to a byte. kTwice yields 2 * code: the step of symmetric binary.
//
// f(Index<quad>, Index<part>, codes). With kInPlace > 1, the lowest kInPlace fields are masked where they are, without
// a shift (and higher ones are shifted to there): part c holds codes * 2^(kBits * c), for the caller to undo after
// summing.
template <int kBits, bool kTwice = false>
struct OnePlane {
  static constexpr int kVectors[2] = {kBits, 0};  // vectors of each plane in one step
  static constexpr int kFields = 8 / kBits;
  static constexpr int kFieldBits = kBits;
  static constexpr int kUp = kTwice ? 1 : 0;

  template <int kInPlace = 1, class F>
  SCRIMP_INLINE void step(const uint8_t* p, const uint8_t*, F f) const {
    each<kBits>([&](auto v) __attribute__((always_inline)) {
      if constexpr (kBits == 8) {
        f(v, Index<0>{}, load(p, v.value));
      } else {
        const __m512i codes = load_once(p, v.value);
        each<kFields>([&](auto i) __attribute__((always_inline)) {
          constexpr int kPart = i.value % kInPlace;
          constexpr int kTo = kInPlace > 1 ? kBits * kPart : kUp;
          const __m512i mask = _mm512_set1_epi8(static_cast<char>(((1 << kBits) - 1) << kTo));
          const __m512i field = _mm512_and_si512(shifted<kBits * i.value - kTo>(codes), mask);
          f(Index<v.value * kFields + i.value>{}, Index<kPart>{}, field);
        });
      }
    });
  }
};

// The low kLow bits in plane 0, the high kHigh bits in plane 1.
template <int kLow, int kHigh>
struct TwoPlanes {
  static constexpr int kVectors[2] = {kLow, kHigh};
  static constexpr int kFields = 1;  // none stays in place: the two parts of a code must meet
  static constexpr int kFieldBits = 0;
  static constexpr int kUp = 0;

  template <int kInPlace = 1, class F>
  SCRIMP_INLINE void step(const uint8_t* p, const uint8_t* high_plane, F f) const {
    const __m512i low_mask = _mm512_set1_epi8((1 << kLow) - 1);
    const __m512i high_mask = _mm512_set1_epi8(((1 << kHigh) - 1) << kLow);
    __m512i low_codes;
    __m512i high_codes;
    each<8>([&](auto q) __attribute__((always_inline)) {
      constexpr int kLowField = q.value % (8 / kLow);
      constexpr int kHighField = q.value % (8 / kHigh);
      if constexpr (kLowField == 0) low_codes = load_once(p, q.value / (8 / kLow));
      if constexpr (kHighField == 0) high_codes = load_once(high_plane, q.value / (8 / kHigh));
      const __m512i low = shifted<kLow * kLowField>(low_codes);
      const __m512i high = shifted<kHigh * kHighField - kLow>(high_codes);
      // (low & low_mask) | (high & high_mask)
      constexpr int kAndOr = 0xF8;  // a | (b & c)
      f(q, Index<0>{}, _mm512_ternarylogic_epi32(_mm512_and_si512(low, low_mask), high, high_mask, kAndOr));
    });
  }
};

// Codes that a table gives their levels, of kLow + kHigh bits as above.
//
// vpermb looks at six bits of a byte, so the 2^bits levels are repeated: what lies above a code needs no mask. Per quad
// of one plane a shift (but for the lowest field) and the look-up. Each level is what it is: none stays in place.
template <int kLow, int kHigh>
struct Levels {
  static constexpr int kVectors[2] = {kLow, kHigh};
  static constexpr int kFields = 1;
  static constexpr int kFieldBits = 0;
  static constexpr int kUp = 0;
  __m512i table;

  explicit Levels(const Matrix& w) {
    alignas(64) uint8_t repeated[64];
    for (int i = 0; i < 64; ++i) repeated[i] = w.levels[i % (1 << (kLow + kHigh))];
    table = load_once(repeated, 0);
  }

  template <int kInPlace = 1, class F>
  SCRIMP_INLINE void step(const uint8_t* p, const uint8_t* high_plane, F f) const {
    if constexpr (kHigh == 0) {
      each<kLow>([&](auto v) __attribute__((always_inline)) {
        const __m512i codes = load_once(p, v.value);
        each<8 / kLow>([&](auto i) __attribute__((always_inline)) {
          f(Index<v.value * (8 / kLow) + i.value>{}, Index<0>{},
            _mm512_permutexvar_epi8(shifted<kLow * i.value>(codes), table));
        });
      });
    } else {
      TwoPlanes<kLow, kHigh>{}.step(p, high_plane,
                                    [&](auto q, auto part, __m512i codes) __attribute__((always_inline)) {
                                      f(q, part, _mm512_permutexvar_epi8(codes, table));
                                    });
    }
  }
};

// Trit i of each rest, 0..80.
struct TritTables {
  alignas(64) uint8_t at[4][128];
  constexpr TritTables() : at() {
    for (int b = 0; b < 81; ++b) {
      for (int i = 0, power = 1; i < 4; ++i, power *= 3) at[i][b] = static_cast<uint8_t>(b / power % 3);
    }
  }
};
constexpr TritTables kTritTables{};

// Five trits per byte: byte = t0 + 3 t1 + 9 t2 + 27 t3 + 81 t4, 0..242.
//
// The byte less 81 t4: twice the smaller one of what is there and 81 less, which wraps to a larger number below 81.
// What is left, 0..80, is looked up in a table of 128 bytes (one vpermi2b) for each of t0..t3. And 81 t4 & 3 = t4. 10
// instructions for 5 quads and nothing to undo after summing. On Zen 4, in the cache, with segments of 32 inputs: 20.6
// GB/s; with one table of four 2-bit fields, shifts and masks 17.9; with a 256-entry table for that 17.1.
// A caller keeps `Trits` in registers across its loop.
struct Trits {
  __m512i table[8];

  SCRIMP_INLINE Trits() {
    each<8>([&](auto i) __attribute__((always_inline)) { table[i.value] = load_once(kTritTables.at[0], i.value); });
  }

  // f(Index<0..4>, codes)
  template <class F>
  SCRIMP_INLINE void vector(const uint8_t* p, F f) const {
    const __m512i bytes = load_once(p, 0);
    const __m512i eighty_one = _mm512_set1_epi8(81);
    const __m512i once = _mm512_min_epu8(bytes, _mm512_sub_epi8(bytes, eighty_one));
    const __m512i rest = _mm512_min_epu8(once, _mm512_sub_epi8(once, eighty_one));
    each<4>([&](auto i) __attribute__((always_inline)) {
      f(i, _mm512_permutex2var_epi8(table[2 * i.value], rest, table[2 * i.value + 1]));
    });
    f(Index<4>{}, _mm512_and_si512(_mm512_sub_epi8(bytes, rest), _mm512_set1_epi8(3)));
  }
};

// f(codes) for the planes of w, which is not ternary. Symmetric binary has step 2; with mins a code is used as it
// stands.
template <class F>
SCRIMP_INLINE void with_planes(const Matrix& w, F f) {
  if (w.element == Element::kTable) {
    if (w.bits == 2) return f(Levels<2, 0>(w));
    if (w.bits == 3) return f(Levels<2, 1>(w));
    return f(Levels<4, 0>(w));
  }
  if (w.element == Element::kBinary) {
    if (w.mins == nullptr) return f(OnePlane<1, true>{});
    return f(OnePlane<1>{});
  }
  switch (w.bits) {
    case 2:
      return f(OnePlane<2>{});
    case 3:
      return f(TwoPlanes<2, 1>{});
    case 4:
      return f(OnePlane<4>{});
    case 5:
      return f(TwoPlanes<4, 1>{});
    case 6:
      return f(TwoPlanes<4, 2>{});
    default:
      return f(OnePlane<8>{});
  }
}

}  // namespace
}  // namespace scrimp::avx512
