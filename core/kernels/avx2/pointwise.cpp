#include <math.h>

#include "kernels/avx2/isa.h"
#include "kernels/avx2/vec.h"

namespace scrimp::avx2 {
namespace {
#include "kernels/simd/exp.inl"

#include "kernels/simd/curves.inl"

#include "kernels/simd/pointwise.inl"
}  // namespace

void rms_norm(const float* x, const float* weight, float offset, float eps, int64_t n, float* y) {
  rms_norm_body(x, weight, offset, eps, n, y);
}
void layer_norm(const float* x, const float* weight, const float* bias, float eps, int64_t n, float* y) {
  layer_norm_body(x, weight, bias, eps, n, y);
}
void activation(Curve curve, const float* x, const float* times, int64_t n, float* y) {
  activation_body(curve, x, times, n, y);
}
void softcap(const float* x, float cap, int64_t n, float* y) { softcap_body(x, cap, n, y); }
void add(const float* a, const float* b, int64_t n, float* y) { add_body(a, b, n, y); }
void rope(float* x, int64_t heads, int64_t head_dim, const float* cos, const float* sin) {
  rope_body(x, heads, head_dim, cos, sin);
}
void to_f16(const float* x, int64_t n, uint16_t* y) { to_f16_body(x, n, y); }
float log_sum_exp(const float* x, int64_t n, int64_t* argmax) { return log_sum_exp_body(x, n, argmax); }
double divergence(const float* p, float lse_p, const float* q, float lse_q, int64_t n) {
  return divergence_body(p, lse_p, q, lse_q, n);
}

}  // namespace scrimp::avx2
