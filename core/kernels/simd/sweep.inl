// Rounding weights to the levels of a format: the sums that choose a scale, and GPTQ's rounding with feedback.
// Included inside the namespace of an instruction set, after product.inl.
//
// A value is rounded as the format decodes it, number * scale, then + low: no fused operation there. Sums are chains of
// fused multiply-adds in the order of the inputs.

namespace {

struct Rounded {
  Vec number;
  float code[kLanes];
};

inline int64_t level_of(const Rounding& r, float x) {
  int64_t level = 0;
  for (int64_t half = r.levels / 2; half > 0; half /= 2) level += r.bounds[level + half - 1] <= x ? half : 0;
  return level;
}

inline Rounded round_to(const Rounding& r, Vec x) {
  Rounded found;
  if (r.bounds == nullptr) {
    found.number = min(max(round_even(x), broadcast(r.least)), broadcast(r.most));
    store(found.code, found.number - broadcast(r.least));
    return found;
  }
  float lanes[kLanes];
  store(lanes, x);
  for (float& lane : lanes) {
    const int64_t level = level_of(r, lane);
    found.code[&lane - lanes] = static_cast<float>(r.codes[level]);
    lane = r.numbers[level];
  }
  found.number = load(lanes);
  return found;
}

// The sums of kVecs vectors of blocks, of which `blocks` are there.
template <int kVecs>
void sums_of(const Rounding& r, const float* w, int64_t w_stride, const float* importance, int64_t inputs,
             int64_t blocks, const float* scales, const float* divisors, const float* lows, float* sums,
             int64_t sums_stride) {
  const Vec zero = broadcast(0.0F);
  const auto part = [&](const float* p, int v) {
    const int64_t left = blocks - v * kLanes;
    return left >= kLanes ? load(p + v * kLanes) : left > 0 ? load_first(p + v * kLanes, left, zero) : zero;
  };
  Vec scale[kVecs], divisor[kVecs], low[kVecs], found[4][kVecs];
  for (int v = 0; v < kVecs; ++v) {
    scale[v] = part(scales, v);
    divisor[v] = part(divisors, v);
    low[v] = lows != nullptr ? part(lows, v) : zero;
    for (auto& sum : found) sum[v] = zero;
  }
  for (int64_t k = 0; k < inputs; ++k) {
    const Vec h = broadcast(importance[k]);
#pragma GCC unroll 4
    for (int v = 0; v < kVecs; ++v) {
      const Vec weight = part(w + k * w_stride, v);
      const Vec number = round_to(r, (weight - low[v]) / divisor[v]).number;
      const Vec off = number * scale[v] + low[v] - weight;
      const Vec share = h * number;
      found[0][v] = fma(h * off, off, found[0][v]);
      found[1][v] = found[1][v] + share;
      found[2][v] = fma(share, number, found[2][v]);
      found[3][v] = fma(share, weight, found[3][v]);
    }
  }
  for (int i = 0; i < 4; ++i)
    for (int v = 0; v < kVecs; ++v) {
      const int64_t left = blocks - v * kLanes;
      if (left > 0) store_first(sums + i * sums_stride + v * kLanes, found[i][v], left < kLanes ? left : kLanes);
    }
}

}  // namespace

void weighted_sums(const Rounding& r, const float* w, int64_t w_stride, const float* importance, int64_t inputs,
                   int64_t blocks, const float* scales, const float* divisors, const float* lows, float* sums) {
  constexpr int kVecs = 2;  // a cache line of weights, or two
  for (int64_t m = 0; m < blocks; m += kVecs * kLanes)
    sums_of<kVecs>(r, w + m, w_stride, importance, inputs, blocks - m, scales + m, divisors + m,
                   lows != nullptr ? lows + m : nullptr, sums + m, blocks);
}

namespace {

// Inputs that feed each other one by one; what they get of all before comes by a product. A multiple of kProductTokens.
constexpr int64_t kLeaf = 24;
static_assert(kStripRows % kLanes == 0);

inline void sweep_strip(const Sweep& s, int64_t strip) {
  constexpr int64_t kVecs = kStripRows / kLanes;
  float* weights = s.weights + strip * s.inputs * kStripRows;
  uint16_t* codes = s.codes + strip * s.inputs * kStripRows;
  float target[kLeaf * kStripRows];
  for (int64_t begin = s.begin; begin < s.end; begin += kLeaf) {
    const int64_t end = s.end - begin < kLeaf ? s.end : begin + kLeaf;
    const float* feedback = s.feedback + begin * s.inputs;
    memcpy(target, weights + begin * kStripRows, static_cast<size_t>((end - begin) * kStripRows) * sizeof(float));
    if (begin > 0)
      product(FloatPanel{weights, kStripRows}, kStripRows, begin, feedback, s.inputs, end - begin, target, kStripRows,
              true);
    for (int64_t k = begin; k < end; ++k) {
      const int64_t at = s.group[k] * s.rows_padded + strip * kStripRows;
      for (int64_t v = 0; v < kVecs; ++v) {
        const int64_t row = v * kLanes;
        const Vec low = s.lows != nullptr ? load(s.lows + at + row) : broadcast(0.0F);
        const Vec wanted = load(target + (k - begin) * kStripRows + row);
        const Rounded found = round_to(s.rounding, (wanted - low) / load(s.divisors + at + row));
        float* weight = weights + k * kStripRows + row;
        const Vec missed = load(weight) - (found.number * load(s.scales + at + row) + low);
        store(weight, missed);
        for (int64_t i = 0; i < kLanes; ++i) codes[k * kStripRows + row + i] = static_cast<uint16_t>(found.code[i]);
        for (int64_t j = k + 1; j < end; ++j) {
          float* to = target + (j - begin) * kStripRows + row;
          store(to, fma(broadcast(s.feedback[j * s.inputs + k]), missed, load(to)));
        }
      }
    }
  }
}

}  // namespace

void sweep(const Sweep& sweep, int64_t strip_begin, int64_t strip_end) {
  for (int64_t strip = strip_begin; strip < strip_end; ++strip) sweep_strip(sweep, strip);
}

namespace {

constexpr int64_t kParts = kAbreast / kLanes;
// Rows whose sums are chains of their own: as many as hide the time of one multiplication.
constexpr int64_t kChains = 4;

struct Abreast {
  Vec part[kParts];
};

inline Abreast abreast(const float* p) {
  Abreast a;
  for (int64_t i = 0; i < kParts; ++i) a.part[i] = load(p + i * kLanes);
  return a;
}

inline void put(float* p, const Abreast& a) {
  for (int64_t i = 0; i < kParts; ++i) store(p + i * kLanes, a.part[i]);
}

// sums[c] += by[c][m] * terms[m] for m in [begin, end), in this order; by's rows are `stride` apart.
template <int64_t kRows>
inline void add_rows(Abreast* sums, const float* by, int64_t stride, const float* terms, int64_t begin, int64_t end) {
  Abreast held[kRows];
  for (int64_t c = 0; c < kRows; ++c) held[c] = sums[c];
  for (int64_t m = begin; m < end; ++m) {
    const Abreast term = abreast(terms + m * kAbreast);
    for (int64_t c = 0; c < kRows; ++c) {
      const Vec share = broadcast(by[c * stride + m]);
      for (int64_t i = 0; i < kParts; ++i) held[c].part[i] = fma(share, term.part[i], held[c].part[i]);
    }
  }
  for (int64_t c = 0; c < kRows; ++c) sums[c] = held[c];
}

inline void add_rows(int64_t rows, Abreast* sums, const float* by, int64_t stride, const float* terms, int64_t end) {
  if (rows == kChains) return add_rows<kChains>(sums, by, stride, terms, 0, end);
  for (int64_t c = 0; c < rows; ++c) add_rows<1>(sums + c, by + c * stride, stride, terms, 0, end);
}

// Inputs [begin, begin + count) of row n; `felt` is what other rows' misses say of them, `panel` as below.
inline void round_abreast(const SweepBoth& s, int64_t n, int64_t begin, int64_t count, const float* panel,
                          const Abreast& from_inputs, const Abreast& felt, float* passed_on) {
  float before[kAbreast], beside[kAbreast];
  put(before, from_inputs);
  put(beside, felt);
  Abreast running = from_inputs;
  for (int64_t c = 0; c < count; ++c) {
    const int64_t at = n * s.inputs + begin + c, scale = s.group[begin + c] * s.rows + n;
    const float low = s.lows != nullptr ? s.lows[scale] : 0.0F, w = s.weights[at];
    const float x = (w + before[c] + beside[c] - low) / s.divisors[scale];
    float number;
    if (s.rounding.bounds == nullptr) {
      number = __builtin_fminf(__builtin_fmaxf(__builtin_nearbyintf(x), s.rounding.least), s.rounding.most);
      s.codes[at] = static_cast<uint16_t>(number - s.rounding.least);
    } else {
      const int64_t level = level_of(s.rounding, x);
      number = s.rounding.numbers[level];
      s.codes[at] = s.rounding.codes[level];
    }
    const float value = number * s.scales[scale], missed = w - (value + low);
    s.weights[at] = missed;
    passed_on[c] = missed + before[c];
    const Abreast share = abreast(panel + (begin + c) * kAbreast);
    for (int64_t i = 0; i < kParts; ++i) running.part[i] = fma(broadcast(missed), share.part[i], running.part[i]);
    put(before, running);
  }
}

}  // namespace

void sweep_both(const SweepBoth& s) {
  // by_input of the inputs that are rounded together, turned: [K][kAbreast]; what rows pass on: [N][kAbreast].
  float *panel = s.scratch, *from_inputs = panel + s.inputs * kAbreast, *passed_on = from_inputs + s.rows * kAbreast;
  for (int64_t begin = 0; begin < s.inputs; begin += kAbreast) {
    const int64_t count = s.inputs - begin < kAbreast ? s.inputs - begin : kAbreast;
    for (int64_t j = 0; j < begin + count; ++j)
      for (int64_t c = 0; c < kAbreast; ++c)
        panel[j * kAbreast + c] = c < count && j < begin + c ? s.by_input[(begin + c) * s.inputs + j] : 0.0F;
    memset(from_inputs, 0, static_cast<size_t>(2 * s.rows * kAbreast) * sizeof(float));
    for (int64_t n = 0; n < s.rows; n += kChains) {
      const int64_t rows = s.rows - n < kChains ? s.rows - n : kChains;
      Abreast sums[kChains];
      for (int64_t c = 0; c < rows; ++c) sums[c] = abreast(from_inputs + (n + c) * kAbreast);
      add_rows(rows, sums, s.weights + n * s.inputs, s.inputs, panel, begin);
      for (int64_t c = 0; c < rows; ++c) put(from_inputs + (n + c) * kAbreast, sums[c]);
    }
    for (int64_t n = 0; n < s.rows; n += kChains) {
      const int64_t rows = s.rows - n < kChains ? s.rows - n : kChains;
      Abreast felt[kChains] = {};
      const float* by = s.by_row + n * s.rows;
      add_rows(rows, felt, by, s.rows, passed_on, n);
      for (int64_t c = 0; c < rows; ++c) {
        add_rows<1>(felt + c, by + c * s.rows, s.rows, passed_on, n, n + c);
        round_abreast(s, n + c, begin, count, panel, abreast(from_inputs + (n + c) * kAbreast), felt[c],
                      passed_on + (n + c) * kAbreast);
      }
    }
  }
}
