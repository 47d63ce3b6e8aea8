// Everything that touches a row once. Included inside the namespace of an instruction set.

// sum x^2 in double precision, so y has about three roundings, and one more of offset + weight where
// offset is not 0: |y - exact| <= 4 u |y| + u |offset + weight| |y / (offset + weight)|.
void rms_norm(const float* x, const float* weight, float offset, float eps, int64_t n, float* y) {
  Wide squares = wide(0.0);
  int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes) {
    const Wide a = widen(load(x + i));
    squares = fma(a, a, squares);
  }
  const Vec nothing = broadcast(0.0F);
  if (i < n) {
    const Wide a = widen(load_first(x + i, n - i, nothing));
    squares = fma(a, a, squares);
  }
  const double mean = sum(squares) / static_cast<double>(n);
  const Vec scale = broadcast(static_cast<float>(1.0 / ::sqrt(mean + static_cast<double>(eps))));
  const Vec shift = broadcast(offset);
  for (i = 0; i + kLanes <= n; i += kLanes) store(y + i, load(x + i) * scale * (shift + load(weight + i)));
  if (i < n) {
    const int64_t left = n - i;
    const Vec w = shift + load_first(weight + i, left, nothing);
    store_first(y + i, load_first(x + i, left, nothing) * scale * w, left);
  }
}

// The sums of x and of its squared distances from the mean are taken in double precision, one after the other.
// Error: |y - exact| <= (4 u |(x - mean) / sd| + u |mean| / sd) |weight| + u |y|: the mean is rounded to float.
void layer_norm(const float* x, const float* weight, const float* bias, float eps, int64_t n, float* y) {
  const Vec nothing = broadcast(0.0F);
  Wide total = wide(0.0), squares = wide(0.0);
  int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes) total = total + widen(load(x + i));
  if (i < n) total = total + widen(load_first(x + i, n - i, nothing));
  const double mean = sum(total) / static_cast<double>(n);
  const Vec middle = broadcast(static_cast<float>(mean));
  for (i = 0; i + kLanes <= n; i += kLanes) {
    const Wide d = widen(load(x + i)) - wide(mean);
    squares = fma(d, d, squares);
  }
  double left_over = 0.0;  // lanes past the end would count the mean itself
  for (; i < n; ++i) left_over += (static_cast<double>(x[i]) - mean) * (static_cast<double>(x[i]) - mean);
  const double variance = (sum(squares) + left_over) / static_cast<double>(n);
  const Vec scale = broadcast(static_cast<float>(1.0 / ::sqrt(variance + static_cast<double>(eps))));
  for (i = 0; i + kLanes <= n; i += kLanes)
    store(y + i, (load(x + i) - middle) * scale * load(weight + i) + load(bias + i));
  if (i < n) {
    const int64_t left = n - i;
    const Vec normal = (load_first(x + i, left, nothing) - middle) * scale;
    store_first(y + i, normal * load_first(weight + i, left, nothing) + load_first(bias + i, left, nothing), left);
  }
}

namespace {

template <class Bend>
inline void activation_of(const Bend& bend, const float* x, const float* times, int64_t n, float* y) {
  const Vec one = broadcast(1.0F);
  int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes) store(y + i, bend(load(x + i)) * (times ? load(times + i) : one));
  if (i < n) {
    const Vec factor = times ? load_first(times + i, n - i, one) : one;
    store_first(y + i, bend(load_first(x + i, n - i, broadcast(0.0F))) * factor, n - i);
  }
}

}  // namespace

void activation(Curve curve, const float* x, const float* times, int64_t n, float* y) {
  switch (curve) {
    case Curve::kSilu:
      return activation_of([](Vec v) { return silu(v); }, x, times, n, y);
    case Curve::kGelu:
      return activation_of([](Vec v) { return gelu(v); }, x, times, n, y);
    case Curve::kGeluTanh:
      return activation_of([](Vec v) { return gelu_tanh(v); }, x, times, n, y);
    case Curve::kRelu2:
      return activation_of([](Vec v) { return relu2(v); }, x, times, n, y);
  }
}

void softcap(const float* x, float cap, int64_t n, float* y) {
  int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes) store(y + i, capped(load(x + i), cap));
  if (i < n) store_first(y + i, capped(load_first(x + i, n - i, broadcast(0.0F)), cap), n - i);
}

void add(const float* a, const float* b, int64_t n, float* y) {
  int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes) store(y + i, load(a + i) + load(b + i));
  if (i < n) {
    const Vec nothing = broadcast(0.0F);
    store_first(y + i, load_first(a + i, n - i, nothing) + load_first(b + i, n - i, nothing), n - i);
  }
}

// Products and sums are rounded one by one: the same bits on every machine.
void rope(const float* x, int64_t heads, int64_t head_dim, const float* cos, const float* sin, float* y) {
  const int64_t half = head_dim / 2;
  const Vec nothing = broadcast(0.0F);
  for (int64_t h = 0; h < heads; ++h, x += head_dim, y += head_dim) {
    for (int64_t i = 0; i < half; i += kLanes) {
      const int64_t count = half - i < kLanes ? half - i : kLanes;
      const Vec c = load_first(cos + i, count, nothing);
      const Vec s = load_first(sin + i, count, nothing);
      const Vec a = load_first(x + i, count, nothing);
      const Vec b = load_first(x + half + i, count, nothing);
      store_first(y + i, a * c - b * s, count);
      store_first(y + half + i, b * c + a * s, count);
    }
  }
}

void to_f16(const float* x, int64_t n, uint16_t* y) {
  int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes) store_f16(y + i, load(x + i));
  if (i < n) store_f16_first(y + i, load_first(x + i, n - i, broadcast(0.0F)), n - i);
}

namespace {

inline int64_t first_equal(const float* x, int64_t n, float value) {
  int64_t i = 0;
  while (i + kLanes <= n && !any_equal(load(x + i), broadcast(value))) i += kLanes;
  while (i < n && x[i] != value) ++i;
  return i < n ? i : 0;
}

}  // namespace

// Exponentials are added in float for kRun vectors, then in double.
// Error: |lse - exact| <= u |lse| + (kRun + 6) u + u |x - max| of the terms that count (about 2e-6 in all).
float log_sum_exp(const float* x, int64_t n, int64_t* argmax) {
  constexpr int64_t kRun = 16 * kLanes;
  const Vec lowest = broadcast(-__builtin_inff());
  Vec top = lowest;
  for (int64_t i = 0; i < n; i += kLanes)
    top = max(i + kLanes <= n ? load(x + i) : load_first(x + i, n - i, lowest), top);
  const float peak = largest(top);
  *argmax = first_equal(x, n, peak);
  if (peak - peak != 0.0F) return peak;  // infinite

  const Vec middle = broadcast(peak);
  Wide total = wide(0.0);
  for (int64_t begin = 0; begin < n; begin += kRun) {
    const int64_t end = n - begin < kRun ? n : begin + kRun;
    Vec run = broadcast(0.0F);
    for (int64_t i = begin; i < end; i += kLanes)
      run = run + exp((i + kLanes <= n ? load(x + i) : load_first(x + i, n - i, lowest)) - middle);
    total = total + widen(run);
  }
  return static_cast<float>(static_cast<double>(peak) + ::log(sum(total)));
}

// The differences of logits are exact in double; exp(p - lse_p) is a float with a relative error of u (|p - lse_p| +
// 4). Where that is 0 the term is 0, also against an infinite q.
double divergence(const float* p, float lse_p, const float* q, float lse_q, int64_t n) {
  const Vec lowest = broadcast(-__builtin_inff());
  const Vec shift = broadcast(lse_p);
  const Wide offset = wide(static_cast<double>(lse_q) - static_cast<double>(lse_p));
  Wide total = wide(0.0);
  for (int64_t i = 0; i < n; i += kLanes) {
    const bool whole = i + kLanes <= n;
    const Vec a = whole ? load(p + i) : load_first(p + i, n - i, lowest);
    const Vec b = whole ? load(q + i) : load_first(q + i, n - i, lowest);
    const Wide weight = widen(exp(a - shift));
    total = fma(weight, where_nonzero(widen(a) - widen(b) + offset, weight), total);
  }
  return sum(total);
}
