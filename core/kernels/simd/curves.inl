// The functions of activations and caps over Vec. Included inside the namespace of an instruction set, behind exp.inl.

namespace {

// silu(x) = x / (1 + exp(-x)). Error: 6 u relative; 0 where exp(-x) overflows (x < -88.7, |silu| < 3e-37).
inline Vec silu(Vec x) { return x / (broadcast(1.0F) + exp(broadcast(0.0F) - x)); }

// gelu(x) = x Phi(x) = max(x, 0) - |x| h, h = Phi(-|x|) = exp(-x^2 / 2) t P(t), t = 1 / (1 + |x| / 4); P of degree 9 is
// the minimax polynomial for the relative error of h (reweighted least squares; 1.5e-8 with the coefficients rounded to
// float32). Beyond 14 h rounds to 0.
// Error: |x| h has (17 + x^2) u relative and, below the normal range, up to 2^-142; the difference one rounding more.
inline Vec gelu(Vec x) {
  const Vec size = min(broadcast(14.0F), max(broadcast(0.0F) - x, x));
  const Vec t = broadcast(1.0F) / fma(size, broadcast(0.25F), broadcast(1.0F));
  Vec p = fma(broadcast(0x1.196c52p-6F), t, broadcast(-0x1.0ed072p-4F));
  p = fma(p, t, broadcast(0x1.e8f63ap-5F));
  p = fma(p, t, broadcast(0x1.1cf110p-6F));
  p = fma(p, t, broadcast(0x1.6bda8cp-6F));
  p = fma(p, t, broadcast(0x1.4d4ab6p-4F));
  p = fma(p, t, broadcast(0x1.2eb3b4p-4F));
  p = fma(p, t, broadcast(0x1.857cd8p-4F));
  p = fma(p, t, broadcast(0x1.97bde4p-4F));
  p = fma(p, t, broadcast(0x1.988e34p-4F));
  const Vec tail = exp(size * size * broadcast(-0.5F)) * t * p;
  return max(broadcast(0.0F), x) - size * tail;
}

// x / 2 (1 + tanh(z)) = x / (1 + exp(-2 z)), 2 z = x (a + b x^2).
// Error: (8 + 6 |z|) u relative; 0 where exp(-2 z) overflows.
inline Vec gelu_tanh(Vec x) {
  const Vec z = x * fma(x * x, broadcast(0x1.2444f2p-4F), broadcast(0x1.988454p+0F));
  return x / (broadcast(1.0F) + exp(broadcast(0.0F) - z));
}

inline Vec relu2(Vec x) {
  const Vec above = max(broadcast(0.0F), x);
  return above * above;
}

// cap tanh(x / cap) = cap - 2 cap / (1 + exp(2 x / cap)). Error: 9 u cap.
inline Vec capped(Vec x, float cap) {
  const Vec e = exp(x * broadcast(2.0F / cap));
  return broadcast(cap) - broadcast(2.0F * cap) / (broadcast(1.0F) + e);
}

}  // namespace
