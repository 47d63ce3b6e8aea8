#include "hadamard.h"

namespace scrimp {
namespace {

// y[j] = sum_k F[j k mod m] (d x)[k] over stretches of p, for the first kWide columns, whose sums stay in registers;
// d only where kSigned.
template <bool kSigned, int kWide>
void mix_columns(const float* x, const float* d, const float* hartley, int64_t m, int64_t p, float* y) {
  for (int64_t j = 0; j < m; ++j) {
    float sums[kWide] = {};
    for (int64_t k = 0, at = 0; k < m; ++k) {
      const float f = hartley[at];
      at += j;
      if (at >= m) at -= m;
      for (int i = 0; i < kWide; ++i) sums[i] += f * (kSigned ? d[k * p + i] * x[k * p + i] : x[k * p + i]);
    }
    for (int i = 0; i < kWide; ++i) y[j * p + i] = sums[i];
  }
}

template <bool kSigned>
void mix(const float* x, const float* d, const float* hartley, int64_t m, int64_t p, float* y) {
  if (m == 1) {
    for (int64_t i = 0; i < p; ++i) y[i] = kSigned ? d[i] * x[i] : x[i];
    return;
  }
  int64_t i = 0;
  for (; i + 8 <= p; i += 8) mix_columns<kSigned, 8>(x + i, d + i, hartley, m, p, y + i);
  for (; i < p; ++i) mix_columns<kSigned, 1>(x + i, d + i, hartley, m, p, y + i);
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
  if (inverse) {
    mix<false>(x, d, hartley, m, p, y);
  } else {
    mix<true>(x, d, hartley, m, p, y);
  }
  for (int64_t k = 0; k < m; ++k) transform(y + k * p, p);
  if (!inverse) return;
  for (int64_t i = 0; i < n; ++i) y[i] *= d[i];
}

}  // namespace scrimp
