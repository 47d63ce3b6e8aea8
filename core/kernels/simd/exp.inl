// exp(x) over Vec. Included inside the namespace of an instruction set.
//
// x = n ln2 + r with |r| <= ln2/2, exp(x) = 2^n (1 + r + r^2 Q(r)); Q of degree 4 is the minimax polynomial for the
// relative error of exp (found by reweighted least squares; 4e-9 with the coefficients rounded to float32). Error: at
// most 2 ulp for results of at least 2^-126, plus 2^-149 below. exp(-inf) = 0, exp(inf) = inf, NaN stays NaN.

namespace {

inline Vec exp(Vec x) {
  // Below -104 the result rounds to 0, above 89 to infinity. The constant comes first: max and min return x when it is
  // NaN.
  x = min(broadcast(89.0F), max(broadcast(-104.5F), x));
  const Vec n = round_even(x * broadcast(0x1.715476p0F));
  Vec r = fma(n, broadcast(-0x1.62e430p-1F), x);
  r = fma(n, broadcast(0x1.05c610p-29F), r);  // ln2 = 0x1.62e430p-1 - 0x1.05c610p-29 to 48 bits
  Vec q = fma(broadcast(0x1.6a2434p-10F), r, broadcast(0x1.1239e2p-7F));
  q = fma(q, r, broadcast(0x1.5558f2p-5F));
  q = fma(q, r, broadcast(0x1.555492p-3F));
  q = fma(q, r, broadcast(0x1.fffffcp-2F));
  return scale_by_power(fma(fma(q, r, broadcast(1.0F)), r, broadcast(1.0F)), n);
}

}  // namespace
