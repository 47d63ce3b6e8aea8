// The kernels of this folder: AVX2 + FMA + F16C; integer products also with vpdpbusd in either of its encodings.
// The contracts are in ../kernels.h, one for each function pointer of `Kernels`.
#pragma once

#include "kernels/kernels.h"

namespace scrimp::avx2 {

// Bytes of scratch any kernel of this folder needs: a panel of codes and what is known of the activations. Enough for
// rows of up to 2^18 inputs; longer ones must be refused by the caller.
constexpr size_t kScratchBytes = 512 * 1024;

#include "kernels/simd/isa.inl"
int64_t int8_peak(int64_t rounds);
namespace avx_vnni {
void linear_int8(const Matrix& w, const Activations& x, int64_t tile_begin, int64_t tile_end, float* y,
                 int64_t y_stride, uint8_t* scratch);
int64_t int8_peak(int64_t rounds);
}  // namespace avx_vnni
namespace avx512_vnni {
void linear_int8(const Matrix& w, const Activations& x, int64_t tile_begin, int64_t tile_end, float* y,
                 int64_t y_stride, uint8_t* scratch);
int64_t int8_peak(int64_t rounds);
}  // namespace avx512_vnni

}  // namespace scrimp::avx2
