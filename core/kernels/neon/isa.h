// The kernels of this folder: Armv8.0 with Advanced SIMD; integer products also with dot products (FEAT_DotProd) and
// with products of 8-bit matrices (FEAT_I8MM).
// The contracts are in ../kernels.h, one for each function pointer of `Kernels`.
#pragma once

#include "kernels/kernels.h"

namespace scrimp::neon {

// Bytes of scratch any kernel of this folder needs: a panel of codes and what is known of the activations. Enough for
// rows of up to 2^18 inputs; longer ones must be refused by the caller.
constexpr size_t kScratchBytes = 512 * 1024;

#include "kernels/simd/isa.inl"
namespace dotprod {
void linear_int8(const Matrix& w, const Activations& x, int64_t tile_begin, int64_t tile_end, float* y,
                 int64_t y_stride, uint8_t* scratch);
}
namespace i8mm {
void linear_int8(const Matrix& w, const Activations& x, int64_t tile_begin, int64_t tile_end, float* y,
                 int64_t y_stride, uint8_t* scratch);
}

}  // namespace scrimp::neon
