// What touches a row once, against double precision.
#include "check.h"
#include "kernels/scalar/half.h"

namespace scrimp {
namespace {

std::vector<float> row_of(Check& c, int64_t n, double scale = 1) {
  std::vector<float> x(static_cast<size_t>(n));
  c.random.fill(x, scale);
  return x;
}

// A copy that ends where memory ends.
Guarded<float> guarded(const std::vector<float>& x) {
  Guarded<float> copy(static_cast<int64_t>(x.size()));
  std::copy(x.begin(), x.end(), copy.begin());
  return copy;
}

void check_norm(Check& c, int64_t n) {
  const double size = std::exp2(c.random.one_of({0, 0, -60, 60, 120}));
  const auto x = guarded(row_of(c, n, size)), weight = guarded(row_of(c, n));
  Guarded<float> y(n);
  const float eps = c.random.one_of({0.0F, 1e-5F, 1.0F});
  c.kernels.rms_norm(x.data(), weight.data(), 0.0F, eps, n, y.data());
  double squares = 0;
  for (float value : std::vector<float>(x.data(), x.data() + n)) squares += double{value} * double{value};
  const double root = std::sqrt(squares / static_cast<double>(n) + double{eps});
  for (int64_t i = 0; i < n; ++i) {
    const double exact = double{x[i]} / root * double{weight[i]};
    const double bound = (gamma_of(3) + static_cast<double>(n + 5) * 0x1p-53) * std::fabs(exact);
    c.within("rms_norm", y[i], exact, bound + (std::fabs(double{weight[i]}) + 1) * kTiniest, std::to_string(n));
  }
}

// exp within 2 ulp, then 1 + exp, the quotient and the product; 0 where exp(-gate) overflows.
void check_swiglu(Check& c, int64_t n) {
  const auto gate = guarded(row_of(c, n, c.random.one_of({1.0, 5.0, 40.0, 1e-30}))), up = guarded(row_of(c, n));
  Guarded<float> y(n);
  c.kernels.activation(Curve::kSilu, gate.data(), up.data(), n, y.data());
  for (int64_t i = 0; i < n; ++i) {
    const double g = double{gate[i]}, exact = g / (1 + std::exp(-g)) * double{up[i]};
    const double bound = (g < -88.7 ? 1 + gamma_of(7) : gamma_of(7)) * std::fabs(exact);
    c.within("swiglu", y[i], exact, bound + (std::fabs(double{up[i]}) + 1) * kTiniest, "gate " + std::to_string(g));
  }
}

// As the scalar kernel in double precision makes them, within what curves.inl and pointwise.inl promise.
void check_curves(Check& c, int64_t n) {
  auto x = guarded(row_of(c, n, c.random.one_of({1.0, 4.0}))), w = guarded(row_of(c, n)), b = guarded(row_of(c, n));
  Guarded<float> got(n), exact(n);
  for (Curve curve : {Curve::kGelu, Curve::kGeluTanh, Curve::kRelu2}) {
    c.kernels.activation(curve, x.data(), nullptr, n, got.data());
    kScalarKernels.activation(curve, x.data(), nullptr, n, exact.data());
    for (int64_t i = 0; i < n; ++i) {
      const double v = double{x[i]}, bound = gamma_of(20 + static_cast<int64_t>(v * v) * 2) * std::fabs(v);
      c.within("activation", got[i], exact[i], bound + kTiniest, "x " + std::to_string(v));
    }
  }
  std::copy(x.begin(), x.end(), got.begin());
  std::copy(x.begin(), x.end(), exact.begin());
  c.kernels.softcap(got.data(), 3.0F, n, got.data());
  kScalarKernels.softcap(exact.data(), 3.0F, n, exact.data());
  for (int64_t i = 0; i < n; ++i) c.within("softcap", got[i], exact[i], 10 * kUnit * 3, std::to_string(x[i]));
  c.kernels.layer_norm(x.data(), w.data(), b.data(), 1e-5F, n, got.data());
  kScalarKernels.layer_norm(x.data(), w.data(), b.data(), 1e-5F, n, exact.data());
  double mean = 0, squares = 0;
  for (float v : x) mean += double{v} / static_cast<double>(n);
  for (float v : x) squares += (double{v} - mean) * (double{v} - mean);
  const double sd = std::sqrt(squares / static_cast<double>(n) + 1e-5);
  for (int64_t i = 0; i < n; ++i) {
    const double normal = std::fabs(double{x[i]} - mean) / sd;
    const double bound = (5 * kUnit * normal + 2 * kUnit * std::fabs(mean) / sd) * std::fabs(double{w[i]}) +
                         2 * kUnit * std::fabs(double{exact[i]});
    c.within("layer_norm", got[i], exact[i], bound, std::to_string(n));
  }
}

void check_exact_rows(Check& c, int64_t n) {
  const auto a = guarded(row_of(c, n, 100)), b = guarded(row_of(c, n));
  Guarded<float> got(n), exact(n);
  c.kernels.add(a.data(), b.data(), n, got.data());
  kScalarKernels.add(a.data(), b.data(), n, exact.data());
  c.same("add", got.data(), exact.data(), static_cast<size_t>(n) * 4, std::to_string(n));
  const int64_t heads = c.random.from(1, 3);
  auto x = guarded(row_of(c, heads * 2 * n));
  Guarded<float> apart(heads * 2 * n), turned(heads * 2 * n);
  c.kernels.rope(x.data(), heads, 2 * n, a.data(), b.data(), apart.data());
  kScalarKernels.rope(x.data(), heads, 2 * n, a.data(), b.data(), turned.data());
  c.same("rope", apart.data(), turned.data(), static_cast<size_t>(x.size()) * 4, std::to_string(n));
  c.kernels.rope(x.data(), heads, 2 * n, a.data(), b.data(), x.data());
  c.same("rope", x.data(), turned.data(), static_cast<size_t>(x.size()) * 4, std::to_string(n) + " in place");
}

// Every half, what lies between two of them, and random bits.
void check_halves(Check& c) {
  std::vector<float> x;
  for (uint32_t half = 0; half < 0x10000; half += c.full ? 1 : 7) {
    const float value = scalar::f16_to_float(static_cast<uint16_t>(half));
    const float next = scalar::f16_to_float(static_cast<uint16_t>(half + 1));
    for (float middle : {value, (value + next) / 2}) {
      x.push_back(middle);
      x.push_back(std::nextafter(middle, INFINITY));
      x.push_back(std::nextafter(middle, -INFINITY));
    }
    x.push_back(scalar::float_of_bits(static_cast<uint32_t>(c.random.engine())));
  }
  for (auto& value : x)  // which NaN is not asked for
    if (std::isnan(value)) value = 0.0F;
  const auto n = static_cast<int64_t>(x.size());
  Guarded<uint16_t> got(n), exact(n);
  c.kernels.to_f16(x.data(), n, got.data());
  kScalarKernels.to_f16(x.data(), n, exact.data());
  c.same("to_f16", got.data(), exact.data(), static_cast<size_t>(n) * 2, "halves");
  const float nan = NAN;
  uint16_t stored = 0;
  c.kernels.to_f16(&nan, 1, &stored);
  c.within("to_f16", std::isnan(scalar::f16_to_float(stored)) ? 0 : 1, 0, 0, "NaN");
}

// A log-sum-exp is a float of size up to 32, half an ulp of which is 2^-20; its sum and exponentials add a few.
void check_scores(Check& c, int64_t n) {
  auto p = guarded(row_of(c, n, 5));
  Guarded<float> q(n);
  for (int64_t i = 0; i < n; ++i) q[i] = p[i] + c.random.normal();
  if (n > 1 && c.random.below(4) == 0) p[c.random.below(n)] = -INFINITY;
  if (c.random.below(4) == 0) p[n - 1] = p[n / 2];
  int64_t got_at = -1, at = -1;
  const float got_p = c.kernels.log_sum_exp(p.data(), n, &got_at), lse_p = kScalarKernels.log_sum_exp(p.data(), n, &at);
  c.within("log_sum_exp", got_p, lse_p, 16 * 0x1p-20, std::to_string(n));
  c.within("log_sum_exp", static_cast<double>(got_at), static_cast<double>(at), 0, "largest of " + std::to_string(n));
  const float lse_q = kScalarKernels.log_sum_exp(q.data(), n, &at);
  c.within("divergence", c.kernels.divergence(p.data(), lse_p, q.data(), lse_q, n),
           kScalarKernels.divergence(p.data(), lse_p, q.data(), lse_q, n), 64 * 0x1p-20, std::to_string(n));
  c.within("divergence", c.kernels.divergence(q.data(), lse_q, q.data(), lse_q, n), 0, 0, "of a row from itself");
}

}  // namespace

void check_rows(Check& c) {
  for (int64_t n = 1; n < (c.full ? 140 : 40); ++n) {
    const int64_t width = n < 36 ? n : c.random.from(36, 1600);
    check_norm(c, width);
    check_swiglu(c, width);
    check_curves(c, width);
    check_exact_rows(c, width);
    check_scores(c, width);
  }
  check_halves(c);
}

}  // namespace scrimp
