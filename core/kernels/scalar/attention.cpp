#include <math.h>

#include "kernels/scalar/half.h"
#include "kernels/scalar/isa.h"

namespace scrimp::scalar {
namespace {

float widen(uint16_t half) { return f16_to_float(half); }
float widen(float value) { return value; }

// One query over positions 0 .. last, in double precision; `output` has head_dim doubles.
// The softmax is online: whenever a score is the new peak, what was gathered before shrinks to the new scale.
template <class Stored>
void attend(const Attention& a, const float* q, const Stored* keys, const Stored* values, int64_t last, double* output,
            float* out) {
  double peak = -INFINITY;
  double sum = 0.0;
  for (int64_t d = 0; d < a.head_dim; ++d) output[d] = 0.0;
  for (int64_t p = 0; p <= last; ++p) {
    double score = 0.0;
    for (int64_t d = 0; d < a.head_dim; ++d)
      score += static_cast<double>(q[d]) * static_cast<double>(widen(keys[p * a.head_dim + d]));
    score *= static_cast<double>(a.scale);
    if (score > peak) {
      const double shrink = ::exp(peak - score);
      sum *= shrink;
      for (int64_t d = 0; d < a.head_dim; ++d) output[d] *= shrink;
      peak = score;
    }
    const double weight = ::exp(score - peak);
    sum += weight;
    for (int64_t d = 0; d < a.head_dim; ++d)
      output[d] += weight * static_cast<double>(widen(values[p * a.head_dim + d]));
  }
  for (int64_t d = 0; d < a.head_dim; ++d) out[d] = static_cast<float>(output[d] / sum);
}

template <class Stored>
void attend_all(const Attention& a, int64_t head_begin, int64_t head_end, int64_t token_begin, int64_t token_end,
                double* output) {
  const auto* keys = static_cast<const Stored*>(a.keys);
  const auto* values = static_cast<const Stored*>(a.values);
  for (int64_t t = token_begin; t < token_end; ++t) {
    for (int64_t h = head_begin; h < head_end; ++h) {
      const int64_t kv_head = h / (a.heads / a.kv_heads);
      const int64_t from = kv_head * a.capacity * a.head_dim;
      attend(a, a.q + t * a.q_stride + h * a.head_dim, keys + from, values + from, a.start + t, output,
             a.out + t * a.out_stride + h * a.head_dim);
    }
  }
}

}  // namespace

void attention(const Attention& a, int64_t head_begin, int64_t head_end, int64_t token_begin, int64_t token_end,
               uint8_t* scratch) {
  double* output = reinterpret_cast<double*>(scratch);
  if (a.float_cache) {
    attend_all<float>(a, head_begin, head_end, token_begin, token_end, output);
  } else {
    attend_all<uint16_t>(a, head_begin, head_end, token_begin, token_end, output);
  }
}

}  // namespace scrimp::scalar
