// The ceilings of this instruction set: reading, vpmaddubsw with what must follow it, vfmadd231ps.
#include "kernels/avx2/isa.h"
#include "kernels/avx2/unpack.h"

namespace scrimp::avx2 {
namespace {

int64_t any(__m256i all) {
  return _mm256_extract_epi64(all, 0) ^ _mm256_extract_epi64(all, 1) ^ _mm256_extract_epi64(all, 2) ^
         _mm256_extract_epi64(all, 3);
}

}  // namespace

uint64_t read(const uint8_t* from, int64_t bytes) {
  __m256i all[8] = {};
  for (const uint8_t* const end = from + bytes; from < end; from += 256) {
    each<8>([&](auto i) __attribute__((always_inline)) {
      const __m256i line = _mm256_load_si256(reinterpret_cast<const __m256i*>(from) + i.value);
      all[i.value] = _mm256_xor_si256(all[i.value], line);
    });
  }
  each<7>([&](auto i) __attribute__((always_inline)) { all[0] = _mm256_xor_si256(all[0], all[i.value + 1]); });
  return static_cast<uint64_t>(any(all[0]));
}

// 8 sums of 16-bit pairs, 32 products each, four times; widened to 32 bits every fourth time.
int64_t int8_peak(int64_t rounds) {
  static_assert(4 * 8 * 32 == kPeakOps);
  __m256i wide[4] = {};
  const __m256i codes = _mm256_set1_epi8(3), ones = _mm256_set1_epi16(1);
  __m256i x = _mm256_set1_epi8(-5);
  for (int64_t i = 0; i < rounds; ++i) {
    __m256i narrow[8] = {};
    each<4>([&](auto) __attribute__((always_inline)) {
      each<8>([&](auto n) __attribute__((always_inline)) {
        asm("" : "+x"(x));  // another one, as far as the compiler knows
        narrow[n.value] = _mm256_add_epi16(narrow[n.value], _mm256_maddubs_epi16(codes, x));
      });
    });
    each<8>([&](auto n) __attribute__((always_inline)) {
      wide[n.value % 4] = _mm256_add_epi32(wide[n.value % 4], _mm256_madd_epi16(narrow[n.value], ones));
    });
  }
  return any(_mm256_xor_si256(_mm256_xor_si256(wide[0], wide[1]), _mm256_xor_si256(wide[2], wide[3])));
}

// 8 sums of 8 lanes, sixteen times.
int64_t f32_peak(int64_t rounds) {
  static_assert(16 * 8 * 8 == kPeakOps);
  __m256 sums[8] = {};
  const __m256 w = _mm256_set1_ps(0.5f), x = _mm256_set1_ps(0.25f);
  for (int64_t i = 0; i < 16 * rounds; ++i) {
    each<8>([&](auto n) __attribute__((always_inline)) {
      __m256 sum = sums[n.value];
      asm("vfmadd231ps %2, %1, %0" : "+x"(sum) : "x"(w), "x"(x));
      sums[n.value] = sum;
    });
  }
  __m256i all = _mm256_setzero_si256();
  each<8>([&](auto n)
              __attribute__((always_inline)) { all = _mm256_xor_si256(all, _mm256_castps_si256(sums[n.value])); });
  return any(all);
}

}  // namespace scrimp::avx2
