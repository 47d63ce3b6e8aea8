#include <math.h>

#include "kernels/scalar/cache.h"
#include "kernels/scalar/isa.h"

namespace scrimp::scalar {
namespace {

// One query over positions begin .. last of a key/value head, in double precision; `output` has head_dim doubles. The
// softmax is online: whenever a score is the new peak, what was gathered before shrinks to the new scale.
void attend(const Attention& a, const float* q, int64_t head, int64_t begin, int64_t last, double* output, float* out) {
  double peak = -INFINITY;
  double sum = 0.0;
  for (int64_t d = 0; d < a.head_dim; ++d) output[d] = 0.0;
  for (int64_t p = begin; p <= last; ++p) {
    double score = 0.0;
    for (int64_t d = 0; d < a.head_dim; ++d)
      score += static_cast<double>(q[d]) * static_cast<double>(cached(a, true, head, p, d));
    score *= static_cast<double>(a.scale);
    if (a.softcap > 0.0F) score = static_cast<double>(a.softcap) * ::tanh(score / static_cast<double>(a.softcap));
    if (score > peak) {
      const double shrink = ::exp(peak - score);
      sum *= shrink;
      for (int64_t d = 0; d < a.head_dim; ++d) output[d] *= shrink;
      peak = score;
    }
    const double weight = ::exp(score - peak);
    sum += weight;
    for (int64_t d = 0; d < a.head_dim; ++d) output[d] += weight * static_cast<double>(cached(a, false, head, p, d));
  }
  for (int64_t d = 0; d < a.head_dim; ++d) out[d] = static_cast<float>(output[d] / sum);
}

}  // namespace

void attention(const Attention& a, int64_t head_begin, int64_t head_end, int64_t token_begin, int64_t token_end,
               uint8_t* scratch) {
  for (int64_t t = token_begin; t < token_end; ++t) {
    for (int64_t h = head_begin; h < head_end; ++h) {
      const int64_t last = a.start + (a.causal ? t : a.tokens - 1);
      const int64_t begin = a.window > 0 && last >= a.window ? last - a.window + 1 : 0;
      attend(a, a.q + t * a.q_stride + h * a.head_dim, h / (a.heads / a.kv_heads), begin, last,
             reinterpret_cast<double*>(scratch), a.out + t * a.out_stride + h * a.head_dim);
    }
  }
}

}  // namespace scrimp::scalar
