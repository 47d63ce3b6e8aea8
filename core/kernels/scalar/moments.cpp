#include <math.h>

#include "kernels/scalar/isa.h"

namespace scrimp::scalar {

void gram(const float* x, const float* turned, int64_t width, int64_t tokens, int64_t begin, int64_t end,
          int64_t row_end, double* moments, uint8_t*) {
  for (int64_t j = begin; j < end; ++j) {
    for (int64_t i = 0; i < row_end; ++i) {
      float sum = 0.0F;
      for (int64_t t = 0; t < tokens; ++t) sum += turned[i * tokens + t] * x[t * width + j];
      moments[i * width + j] += static_cast<double>(sum);
    }
  }
}

bool cholesky_diagonal(double* a, int64_t n, int64_t begin, int64_t end) {
  for (int64_t j = begin; j < end; ++j) {
    double pivot = a[j * n + j];
    for (int64_t i = begin; i < j; ++i) pivot -= a[j * n + i] * a[j * n + i];
    if (!(pivot > 0.0)) return false;
    a[j * n + j] = ::sqrt(pivot);
    for (int64_t row = j + 1; row < end; ++row) {
      double rest = a[row * n + j];
      for (int64_t i = begin; i < j; ++i) rest -= a[row * n + i] * a[j * n + i];
      a[row * n + j] = rest / a[j * n + j];
    }
  }
  return true;
}

void cholesky_solve(double* a, int64_t n, int64_t begin, int64_t end, double*, int64_t row_begin, int64_t row_end) {
  for (int64_t row = row_begin; row < row_end; ++row) {
    for (int64_t j = begin; j < end; ++j) {
      double rest = a[row * n + j];
      for (int64_t i = begin; i < j; ++i) rest -= a[row * n + i] * a[j * n + i];
      a[row * n + j] = rest / a[j * n + j];
    }
  }
}

void cholesky_subtract(double* a, int64_t n, int64_t begin, int64_t end, const double*, int64_t row_begin,
                       int64_t row_end) {
  for (int64_t row = row_begin; row < row_end; ++row)
    for (int64_t col = end; col <= row; ++col) {
      double sum = 0.0;
      for (int64_t k = begin; k < end; ++k) sum += a[row * n + k] * a[col * n + k];
      a[row * n + col] -= sum;
    }
}

}  // namespace scrimp::scalar
