#include "hadamard.h"

#include <algorithm>

namespace scrimp {
namespace {

// y[j] = sum_k F[j k mod m] (d x)[k] over stretches of p; without d where it is null.
void mix(const float* x, const float* d, const float* hartley, int64_t m, int64_t p, float* y) {
  if (m == 1) {
    for (int64_t i = 0; i < p; ++i) y[i] = d ? d[i] * x[i] : x[i];
    return;
  }
  for (int64_t j = 0; j < m; ++j) {
    float* out = y + j * p;
    std::fill(out, out + p, 0.0F);
    for (int64_t k = 0; k < m; ++k) {
      const float f = hartley[j * k % m];
      const float* in = x + k * p;
      if (d) {
        const float* sign = d + k * p;
        for (int64_t i = 0; i < p; ++i) out[i] += f * (sign[i] * in[i]);
      } else {
        for (int64_t i = 0; i < p; ++i) out[i] += f * in[i];
      }
    }
  }
}

// H_p in place: the last two levels, whose partners are neighbours, in one pass over quadruples.
void transform(float* y, int64_t p) {
  int64_t half = p / 2;
  for (; half > 2; half /= 2) {
    for (float *a = y, *end = y + p; a < end; a += 2 * half) {
      float* b = a + half;
      for (int64_t i = 0; i < half; ++i) {
        const float sum = a[i] + b[i];
        b[i] = a[i] - b[i];
        a[i] = sum;
      }
    }
  }
  if (p == 2) {
    const float sum = y[0] + y[1];
    y[1] = y[0] - y[1];
    y[0] = sum;
  }
  for (int64_t i = 0; p >= 4 && i < p; i += 4) {
    const float a = y[i] + y[i + 2], b = y[i + 1] + y[i + 3];
    const float c = y[i] - y[i + 2], e = y[i + 1] - y[i + 3];
    y[i] = a + b;
    y[i + 1] = a - b;
    y[i + 2] = c + e;
    y[i + 3] = c - e;
  }
}

}  // namespace

void rotate(const float* x, const float* d, const float* hartley, int64_t n, int64_t m, bool inverse, float* y) {
  const int64_t p = n / m;
  mix(x, inverse ? nullptr : d, hartley, m, p, y);
  for (int64_t k = 0; k < m; ++k) transform(y + k * p, p);
  if (!inverse) return;
  for (int64_t i = 0; i < n; ++i) y[i] *= d[i];
}

}  // namespace scrimp
