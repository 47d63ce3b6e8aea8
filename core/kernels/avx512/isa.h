// The kernels of this folder: AVX-512 F/BW/VL/DQ/VNNI/VBMI; in one file BF16, too.
// The contracts are in ../kernels.h, one for each function pointer of `Kernels`.
#pragma once

#include "kernels/kernels.h"

namespace scrimp::avx512 {

// Bytes of scratch any kernel of this folder needs: a panel of codes (32 rows x kPanelCols at most) and the sums of the
// activations where they are not known. Enough for rows of up to 2^18 inputs; longer ones must be refused by the
// caller.
constexpr size_t kScratchBytes = 512 * 1024;

#include "kernels/simd/isa.inl"
int64_t int8_peak(int64_t rounds);

namespace bf16 {
void round(const float* x, int64_t n, uint32_t* pairs);
void linear(const Matrix& w, const uint32_t* x, int64_t x_stride, int64_t tokens, int64_t tile_begin, int64_t tile_end,
            float* y, int64_t y_stride);
int64_t peak(int64_t rounds);
}  // namespace bf16

}  // namespace scrimp::avx512
