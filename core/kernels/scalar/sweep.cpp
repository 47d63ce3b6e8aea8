#include <math.h>

#include "kernels/scalar/isa.h"

namespace scrimp::scalar {
namespace {

int64_t level_of(const Rounding& r, float x) {
  int64_t level = 0;
  while (level < r.levels - 1 && r.bounds[level] <= x) ++level;
  return level;
}

// The number of the nearest level, and its code.
float number_of(const Rounding& r, float x, uint16_t* code) {
  if (r.bounds == nullptr) {
    const float whole = ::fminf(::fmaxf(::nearbyintf(x), r.least), r.most);
    *code = static_cast<uint16_t>(whole - r.least);
    return whole;
  }
  const int64_t level = level_of(r, x);
  *code = r.codes[level];
  return r.numbers[level];
}

}  // namespace

void weighted_sums(const Rounding& rounding, const float* w, int64_t w_stride, const float* importance, int64_t inputs,
                   int64_t blocks, const float* scales, const float* divisors, const float* lows, float* sums) {
  for (int64_t m = 0; m < blocks; ++m) {
    const float low = lows != nullptr ? lows[m] : 0.0F;
    float found[4] = {};
    for (int64_t k = 0; k < inputs; ++k) {
      const float weight = w[k * w_stride + m], h = importance[k];
      uint16_t code;
      const float number = number_of(rounding, (weight - low) / divisors[m], &code);
      const float off = number * scales[m] + low - weight;
      found[0] += h * off * off;
      found[1] += h * number;
      found[2] += h * number * number;
      found[3] += h * number * weight;
    }
    for (int64_t i = 0; i < 4; ++i) sums[i * blocks + m] = found[i];
  }
}

void sweep(const Sweep& s, int64_t strip_begin, int64_t strip_end) {
  for (int64_t row = strip_begin * kStripRows; row < strip_end * kStripRows; ++row) {
    const int64_t strip = row / kStripRows * s.inputs * kStripRows, r = row % kStripRows;
    float* weights = s.weights + strip + r;
    for (int64_t k = s.begin; k < s.end; ++k) {
      float target = weights[k * kStripRows];
      for (int64_t j = 0; j < k; ++j) target += s.feedback[k * s.inputs + j] * weights[j * kStripRows];
      const int64_t at = s.group[k] * s.rows_padded + row;
      const float low = s.lows != nullptr ? s.lows[at] : 0.0F;
      const float number = number_of(s.rounding, (target - low) / s.divisors[at], &s.codes[strip + k * kStripRows + r]);
      weights[k * kStripRows] -= number * s.scales[at] + low;
    }
  }
}

void sweep_both(const SweepBoth& s) {
  float* passed_on = s.scratch;  // e + r of an input, row by row
  for (int64_t k = 0; k < s.inputs; ++k)
    for (int64_t n = 0; n < s.rows; ++n) {
      float* weights = s.weights + n * s.inputs;
      float from_inputs = 0, from_rows = 0;
      for (int64_t j = 0; j < k; ++j) from_inputs += s.by_input[k * s.inputs + j] * weights[j];
      for (int64_t m = 0; m < n; ++m) from_rows += s.by_row[n * s.rows + m] * passed_on[m];
      const int64_t at = s.group[k] * s.rows + n;
      const float low = s.lows != nullptr ? s.lows[at] : 0.0F;
      const float x = (weights[k] + from_inputs + from_rows - low) / s.divisors[at];
      weights[k] -= number_of(s.rounding, x, &s.codes[n * s.inputs + k]) * s.scales[at] + low;
      passed_on[n] = weights[k] + from_inputs;
    }
}

}  // namespace scrimp::scalar
