// What the products of one token and of a few share: steps, prefetching and sums.
#pragma once

#include "kernels/avx512/linear_int8.h"

namespace scrimp::avx512 {
namespace {

constexpr int64_t kStep = 32;  // inputs

// How far ahead a stream of codes is asked for, and into which cache: the hardware prefetcher stops at page borders and
// in the shadow of arithmetic. Shares of plain reading with huge pages on Zen 4, one thread, medians:
//
//   groups of              64: int8   int6   int5   int4   nf4    int3   int2   trits   bits | 32: int4   with mins
//   L1, 2048 bytes ahead         92    101     90     95    92     89     94      70     62  |      95       95
//   L1, 4096 bytes ahead                                           96    101      70     61  |     101       98
//   L2, 1024 bytes ahead               100     93    103   101     75     80             59  |      86       75
//   nothing                     102                   90            77                75     |
//
// Others were worse: L1 1024 (int4 75), L1 6144 (int3 86), L2 4096 (74); L2 512 … 2048 are alike.
enum class Into { kNothing, kFirstCache, kSecondCache };

constexpr int64_t ahead_bytes(Into into) { return into == Into::kSecondCache ? 1024 : 4096; }

template <class Codes>
constexpr Into cache_of(bool long_groups) {
  constexpr int kVectors = Codes::kVectors[0] + Codes::kVectors[1];
  return kVectors >= 6 ? Into::kNothing : kVectors >= 4 && long_groups ? Into::kSecondCache : Into::kFirstCache;
}

template <class Codes, Into kInto>
SCRIMP_INLINE void prefetch(const uint8_t* plane0, const uint8_t* plane1) {
  if constexpr (kInto == Into::kNothing) return;
  const auto ahead = [](const uint8_t* p, auto vectors) __attribute__((always_inline)) {
    // an address only: it may lie past the plane
    const uintptr_t from = reinterpret_cast<uintptr_t>(p) + ahead_bytes(kInto);
    each<vectors.value>([&](auto v) __attribute__((always_inline)) {
      _mm_prefetch(reinterpret_cast<const char*>(from + v.value * kVectorBytes),
                   kInto == Into::kSecondCache ? _MM_HINT_T1 : _MM_HINT_T0);
    });
  };
  ahead(plane0, Index<Codes::kVectors[0]>{});
  ahead(plane1, Index<Codes::kVectors[1]>{});
}

// An int32 sum per row, in pieces that do not wait for each other: kCopies of each of kParts parts, where part c holds
// 2^(kBits * c) times its share (see OnePlane). The whole is to be doubled if kUp is 1, without what it starts from.
template <int kParts, int kCopies, int kBits, int kUp>
struct Sum {
  static constexpr int kUndoubled =
      kUp == 1 && kParts > 1;  // the part that needs no shift to be doubled: 1, for one bit
  __m512i piece[kParts * kCopies];

  SCRIMP_INLINE explicit Sum(__m512i start) { begin(start); }
  Sum() = default;

  SCRIMP_INLINE void begin(__m512i start) {
    each<kParts * kCopies>([&](auto c) __attribute__((always_inline)) {
      piece[c.value] = c.value == kUndoubled ? start : _mm512_setzero_si512();
    });
  }

  template <int kPart, int kCopy>
  SCRIMP_INLINE void add(__m512i codes, const int8_t* x) {
    dot(piece[kCopy % kCopies * kParts + kPart], codes, x);
  }

  SCRIMP_INLINE __m512i total() {
    __m512i sum = _mm512_setzero_si512();
    each<kParts>([&](auto c) __attribute__((always_inline)) {
      each<kCopies - 1>([&](auto i) __attribute__((always_inline)) {
        piece[c.value] = _mm512_add_epi32(piece[c.value], piece[(i.value + 1) * kParts + c.value]);
      });
      constexpr int kDown = kParts > 1 ? kBits * c.value - kUp : 0;
      if constexpr (kDown > 0) piece[c.value] = _mm512_srai_epi32(piece[c.value], kDown);
      if constexpr (kDown < 0) piece[c.value] = _mm512_slli_epi32(piece[c.value], -kDown);
      sum = c.value == 0 ? piece[0] : _mm512_add_epi32(sum, piece[c.value]);
    });
    return sum;
  }
};

}  // namespace
}  // namespace scrimp::avx512
