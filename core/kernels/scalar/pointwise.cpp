#include <math.h>

#include "kernels/scalar/half.h"
#include "kernels/scalar/isa.h"

namespace scrimp::scalar {

namespace {

double bent(Curve curve, double x) {
  switch (curve) {
    case Curve::kSilu:
      return x / (1.0 + ::exp(-x));
    case Curve::kGelu:
      return 0.5 * x * ::erfc(-x * 0.70710678118654752);
    case Curve::kGeluTanh:
      return x / (1.0 + ::exp(-2.0 * 0.79788456080286536 * (x + 0.044715 * x * x * x)));
    case Curve::kRelu2:
      return x <= 0.0 ? 0.0 : x * x;
  }
  return x;
}

}  // namespace

void rms_norm(const float* x, const float* weight, float offset, float eps, int64_t n, float* y) {
  double squares = 0.0;
  for (int64_t i = 0; i < n; ++i) squares += static_cast<double>(x[i]) * static_cast<double>(x[i]);
  const double mean = squares / static_cast<double>(n);
  const float scale = static_cast<float>(1.0 / ::sqrt(mean + static_cast<double>(eps)));
  for (int64_t i = 0; i < n; ++i) y[i] = x[i] * scale * (offset + weight[i]);
}

void layer_norm(const float* x, const float* weight, const float* bias, float eps, int64_t n, float* y) {
  double total = 0.0, squares = 0.0;
  for (int64_t i = 0; i < n; ++i) total += static_cast<double>(x[i]);
  const double mean = total / static_cast<double>(n);
  for (int64_t i = 0; i < n; ++i) squares += (static_cast<double>(x[i]) - mean) * (static_cast<double>(x[i]) - mean);
  const double scale = 1.0 / ::sqrt(squares / static_cast<double>(n) + static_cast<double>(eps));
  for (int64_t i = 0; i < n; ++i) {
    const double normal = (static_cast<double>(x[i]) - mean) * scale;
    y[i] = static_cast<float>(normal * static_cast<double>(weight[i]) + static_cast<double>(bias[i]));
  }
}

void activation(Curve curve, const float* x, const float* times, int64_t n, float* y) {
  for (int64_t i = 0; i < n; ++i) {
    const double value = bent(curve, static_cast<double>(x[i]));
    y[i] = static_cast<float>(times ? value * static_cast<double>(times[i]) : value);
  }
}

void softcap(const float* x, float cap, int64_t n, float* y) {
  const double wide = static_cast<double>(cap);
  for (int64_t i = 0; i < n; ++i) y[i] = static_cast<float>(wide * ::tanh(static_cast<double>(x[i]) / wide));
}

void add(const float* a, const float* b, int64_t n, float* y) {
  for (int64_t i = 0; i < n; ++i) y[i] = a[i] + b[i];
}

void rope(const float* x, int64_t heads, int64_t head_dim, const float* cos, const float* sin, float* y) {
  const int64_t half = head_dim / 2;
  for (int64_t h = 0; h < heads; ++h, x += head_dim, y += head_dim) {
    for (int64_t i = 0; i < half; ++i) {
      const float a = x[i];
      const float b = x[half + i];
      y[i] = a * cos[i] - b * sin[i];
      y[half + i] = b * cos[i] + a * sin[i];
    }
  }
}

void to_f16(const float* x, int64_t n, uint16_t* y) {
  for (int64_t i = 0; i < n; ++i) y[i] = float_to_f16(x[i]);
}

float log_sum_exp(const float* x, int64_t n, int64_t* argmax) {
  int64_t best = 0;
  for (int64_t i = 1; i < n; ++i)
    if (x[i] > x[best]) best = i;
  *argmax = best;
  const double peak = static_cast<double>(x[best]);
  if (peak - peak != 0.0) return x[best];  // infinite
  double sum = 0.0;
  for (int64_t i = 0; i < n; ++i) sum += ::exp(static_cast<double>(x[i]) - peak);
  return static_cast<float>(peak + ::log(sum));
}

// A term whose weight is 0 is 0, also against an infinite q.
double divergence(const float* p, float lse_p, const float* q, float lse_q, int64_t n) {
  double total = 0.0;
  for (int64_t i = 0; i < n; ++i) {
    const double log_p = static_cast<double>(p[i]) - static_cast<double>(lse_p);
    const double log_q = static_cast<double>(q[i]) - static_cast<double>(lse_q);
    const double weight = ::exp(log_p);
    if (weight != 0.0) total += weight * (log_p - log_q);
  }
  return total;
}

}  // namespace scrimp::scalar
