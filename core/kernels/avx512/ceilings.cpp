// The ceilings of this instruction set: reading, vpdpbusd, vfmadd231ps. Nothing here waits for anything but its unit.
#include "kernels/avx512/isa.h"
#include "kernels/avx512/unpack.h"

namespace scrimp::avx512 {

uint64_t read(const uint8_t* from, int64_t bytes) {
  __m512i all[8] = {};
  for (const uint8_t* const end = from + bytes; from < end; from += 512) {
    each<8>([&](auto i)
                __attribute__((always_inline)) { all[i.value] = _mm512_xor_si512(all[i.value], load(from, i.value)); });
  }
  each<7>([&](auto i) __attribute__((always_inline)) { all[0] = _mm512_xor_si512(all[0], all[i.value + 1]); });
  return static_cast<uint64_t>(_mm512_reduce_add_epi64(all[0]));
}

// 16 sums: four cycles of latency at up to two a cycle. 64 products each.
int64_t int8_peak(int64_t rounds) {
  static_assert(16 * 64 == kPeakOps);
  __m512i sums[16] = {};
  const __m512i codes = _mm512_set1_epi8(3), x = _mm512_set1_epi8(-5);
  for (int64_t i = 0; i < rounds; ++i) {
    each<16>([&](auto n) __attribute__((always_inline)) {
      __m512i sum = sums[n.value];
      asm("vpdpbusd %2, %1, %0" : "+v"(sum) : "v"(codes), "v"(x));
      sums[n.value] = sum;
    });
  }
  each<15>([&](auto n) __attribute__((always_inline)) { sums[0] = _mm512_xor_si512(sums[0], sums[n.value + 1]); });
  return _mm512_reduce_add_epi32(sums[0]);
}

// 16 sums of 16 lanes, four times.
int64_t f32_peak(int64_t rounds) {
  static_assert(4 * 16 * 16 == kPeakOps);
  __m512 sums[16] = {};
  const __m512 w = _mm512_set1_ps(0.5f), x = _mm512_set1_ps(0.25f);
  for (int64_t i = 0; i < 4 * rounds; ++i) {
    each<16>([&](auto n) __attribute__((always_inline)) {
      __m512 sum = sums[n.value];
      asm("vfmadd231ps %2, %1, %0" : "+v"(sum) : "v"(w), "v"(x));
      sums[n.value] = sum;
    });
  }
  each<15>([&](auto n) __attribute__((always_inline)) { sums[0] = _mm512_add_ps(sums[0], sums[n.value + 1]); });
  return static_cast<int64_t>(_mm512_reduce_add_ps(sums[0]) * 1e-9f);
}

}  // namespace scrimp::avx512
