// What the one-token and the many-token products share: segments, scales, and the dot product.
#pragma once

#include "kernels/avx512/isa.h"
#include "kernels/avx512/powers.h"
#include "kernels/avx512/unpack.h"

namespace scrimp::avx512 {

// One token: each stored vector is unpacked in registers and used at once.
void linear_int8_decode(const Matrix& w, const Activations& x, int64_t tile_begin, int64_t tile_end, float* y,
                        uint8_t* scratch);
// A few tokens, each vector unpacked in registers for all of them; where `takes_few` says so.
constexpr int64_t kFewTokens = 48;
bool takes_few(const Matrix& w, const Activations& x);
void linear_int8_few(const Matrix& w, const Activations& x, int64_t tile_begin, int64_t tile_end, float* y,
                     int64_t y_stride, uint8_t* scratch);
// Many tokens: 32 rows are unpacked into scratch, then multiplied by every token.
void linear_int8_prefill(const Matrix& w, const Activations& x, int64_t tile_begin, int64_t tile_end, float* y,
                         int64_t y_stride, uint8_t* scratch);

namespace {

typedef int32_t __attribute__((may_alias)) Quad;  // four int8 activations

constexpr int64_t smaller(int64_t a, int64_t b) { return a < b ? a : b; }

// Inputs whose products are summed in int32 before a scale is applied: a block of activations or a group of weights,
// whichever is shorter, and never so long that int32 could overflow (255 * 127 * 65536 < 2^31).
SCRIMP_INLINE int64_t segment_inputs(const Matrix& w, const Activations& x) {
  constexpr int64_t kLongest = 65536;
  return smaller(smaller(smaller(w.group, x.block), w.cols), kLongest);
}

// acc += codes * (4 activations broadcast to 16 rows), exact in int32: bytes unsigned by signed, no saturation.
// Assembly, because GCC 12 copies two dozen accumulators to the stack when it sees the intrinsic.
SCRIMP_INLINE void dot(__m512i& acc, __m512i codes, const int8_t* quad) {
  __m512i sum = acc;  // a value, not memory: else the element of an array is stored after each product
  asm("vpdpbusd %2%{1to16%}, %1, %0" : "+v"(sum) : "v"(codes), "m"(*reinterpret_cast<const Quad*>(quad)));
  acc = sum;
}

// The same for two tiles: the broadcast is loaded once, which keeps the load ports from being the limit.
SCRIMP_INLINE void dot(__m512i& acc0, __m512i& acc1, __m512i codes0, __m512i codes1, const int8_t* quad) {
  __m512i sum0 = acc0;
  __m512i sum1 = acc1;
  __m512i x;
  asm("vpbroadcastd %5, %2\n\tvpdpbusd %2, %3, %0\n\tvpdpbusd %2, %4, %1"
      : "+&v"(sum0), "+v"(sum1), "=&v"(x)
      : "v"(codes0), "v"(codes1), "m"(*reinterpret_cast<const Quad*>(quad)));
  acc0 = sum0;
  acc1 = sum1;
}

// 16 scales (or mins) of one tile and group, as float.
SCRIMP_INLINE __m512 load_scales(const void* plane, ScaleType type, int64_t at) {
  const void* halves = static_cast<const uint16_t*>(plane) + at;
  if (type == ScaleType::kF16) return _mm512_cvtph_ps(_mm256_loadu_si256(static_cast<const __m256i*>(halves)));
  if (type == ScaleType::kF32) return _mm512_loadu_ps(static_cast<const float*>(plane) + at);
  if (type == ScaleType::kE8m0) return powers_of_two(static_cast<const uint8_t*>(plane) + at);
  const __m256i stored = _mm256_loadu_si256(static_cast<const __m256i*>(halves));
  return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(stored), 16));
}

// Which of the 16 rows of a tile exist.
SCRIMP_INLINE __mmask16 rows_of(const Matrix& w, int64_t tile) {
  const int64_t left = w.rows - tile * kTileRows;
  return static_cast<__mmask16>(left >= kTileRows ? 0xFFFF : (1 << left) - 1);
}

}  // namespace
}  // namespace scrimp::avx512
