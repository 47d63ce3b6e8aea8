#include <math.h>
#include <string.h>

#include "kernels/neon/isa.h"
#include "kernels/neon/vec.h"

namespace scrimp::neon {
namespace {
#include "kernels/simd/product.inl"

#include "kernels/simd/moments.inl"
}  // namespace

void gram(const float* x, const float* turned, int64_t width, int64_t tokens, int64_t begin, int64_t end,
          int64_t row_end, double* moments, uint8_t* scratch) {
  gram_body(x, turned, width, tokens, begin, end, row_end, moments, reinterpret_cast<float*>(scratch));
}

bool cholesky_diagonal(double* a, int64_t n, int64_t begin, int64_t end) { return diagonal_body(a, n, begin, end); }

void cholesky_solve(double* a, int64_t n, int64_t begin, int64_t end, double* panel, int64_t row_begin,
                    int64_t row_end) {
  solve_body(a, n, begin, end, panel, row_begin, row_end);
}

void cholesky_subtract(double* a, int64_t n, int64_t begin, int64_t end, const double* panel, int64_t row_begin,
                       int64_t row_end) {
  subtract_body(a, n, begin, end, panel, row_begin, row_end);
}

}  // namespace scrimp::neon
