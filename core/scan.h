// The search of quantize/search.py for scales without mins, block by block: all its candidates in one call.
#pragma once

#include <cstdint>
#include <span>

#include "kernels/kernels.h"

namespace scrimp {

// w is [inputs][blocks]; codes end at +-half, and one more on the side of the scale's sign. A candidate is a scale of
// peak / (factor * half), tried with both signs and judged by what the fit to its codes explains, (sum wq)^2 / sum q^2.
// Coarse factors first, then each block's best of them times the fine ones. fits gets the best fit of each block,
// signed; 0 where no candidate explains anything.
void scan_symmetric(const float* w, int64_t inputs, int64_t blocks, float half, const double* peaks,
                    std::span<const double> coarse, std::span<const double> fine, double* fits, const Kernels& kernels);

}  // namespace scrimp
