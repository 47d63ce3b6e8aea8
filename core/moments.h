// Second moments and their Cholesky factor, cut into pieces for threads; the pieces are kernels.
#pragma once

#include <cstdint>

#include "kernels/kernels.h"
#include "pool.h"

namespace scrimp {

// moments (width, width) += x^T x, upper triangle; x is [tokens][width], any number of tokens.
void add_moments(const float* x, int64_t tokens, int64_t width, double* moments, Pool& pool, const Kernels& kernels);

// moments (rows, width) += a^T b; a is [tokens][rows], b [tokens][width].
void add_cross_moments(const float* a, int64_t rows, const float* b, int64_t tokens, int64_t width, double* moments,
                       Pool& pool, const Kernels& kernels);

// Lower triangle of a (n, n) -> L with A = L L^T, zeros above; false when A has none.
bool cholesky(double* a, int64_t n, Pool& pool, const Kernels& kernels);

}  // namespace scrimp
