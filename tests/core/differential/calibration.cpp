// Rounding, moments and their factors, and products of integers.
#include "check.h"

namespace scrimp {
namespace {

struct Levels {
  Rounding rounding{};
  std::vector<float> bounds, numbers;
  std::vector<uint16_t> codes;

  float number(float x, uint16_t* code) const {
    if (bounds.empty()) {
      const float whole = std::fmin(std::fmax(std::nearbyintf(x), rounding.least), rounding.most);
      *code = static_cast<uint16_t>(whole - rounding.least);
      return whole;
    }
    size_t level = 0;
    while (level < bounds.size() && bounds[level] <= x) ++level;
    *code = codes[level];
    return numbers[level];
  }

  // What a code means before the scale.
  float meant(uint16_t code) const {
    for (size_t i = 0; i < codes.size(); ++i)
      if (codes[i] == code) return numbers[i];
    return rounding.least + static_cast<float>(code);
  }
};

Levels levels_of(Check& c, bool table) {
  Levels l;
  if (!table) {
    const auto most = static_cast<float>(c.random.one_of({1, 3, 7, 127}));
    l.rounding = {-most - 1, most, 0, nullptr, nullptr, nullptr};
    return l;
  }
  const int64_t levels = c.random.one_of<int64_t>({2, 8, 16});
  l.numbers.resize(static_cast<size_t>(levels));
  c.random.fill(l.numbers);
  std::sort(l.numbers.begin(), l.numbers.end());
  for (size_t i = 0; i < l.numbers.size(); ++i) l.codes.push_back(static_cast<uint16_t>(l.numbers.size() - 1 - i));
  for (size_t i = 1; i < l.numbers.size(); ++i) l.bounds.push_back((l.numbers[i - 1] + l.numbers[i]) / 2);
  if (levels > 2) {  // one level less: its bound is of no use
    l.bounds.back() = NAN;
  }
  l.rounding = {0, 0, levels, l.bounds.data(), l.numbers.data(), l.codes.data()};
  return l;
}

// The four sums: as the scalar kernel in double precision.
void check_sums(Check& c, bool table) {
  const Levels l = levels_of(c, table);
  const int64_t inputs = c.random.from(1, 70), blocks = c.random.from(1, 40);
  Guarded<float> w(inputs * blocks), h(inputs), scales(blocks), lows(blocks), got(4 * blocks);
  c.random.fill(w);
  for (auto& value : h) value = std::fabs(c.random.normal());
  for (auto& value : scales) value = 0.2F + std::fabs(c.random.normal());
  c.random.fill(lows);
  const bool shifted = c.random.below(2) == 0;
  c.kernels.weighted_sums(l.rounding, w.data(), blocks, h.data(), inputs, blocks, scales.data(), scales.data(),
                          shifted ? lows.data() : nullptr, got.data());
  for (int64_t m = 0; m < blocks; ++m) {
    double exact[4] = {}, size[4] = {};
    for (int64_t k = 0; k < inputs; ++k) {
      const float weight = w[k * blocks + m], low = shifted ? lows[m] : 0.0F;
      uint16_t code;
      const double q = l.number((weight - low) / scales[m], &code);
      const float value = static_cast<float>(q) * scales[m];  // rounded as the format decodes it
      const double off = double{value + low} - double{weight};
      const double terms[4] = {off * off, q, q * q, q * double{weight}};
      for (int i = 0; i < 4; ++i) {
        exact[i] += double{h[k]} * terms[i];
        size[i] += std::fabs(double{h[k]} * terms[i]);
      }
    }
    for (int i = 0; i < 4; ++i)
      c.within("weighted_sums", got[i * blocks + m], exact[i], gamma_of(inputs + 5) * size[i] + 1e-30, "sums");
  }
}

// What an input is said to have missed is put into the formula in double precision: the code must be the nearest to
// what comes out, and the miss its own.
void check_sweep(Check& c, bool table) {
  const Levels l = levels_of(c, table);
  const int64_t inputs = c.random.from(1, 60), strips = c.random.from(1, 2), rows = strips * kStripRows, groups = 2;
  Guarded<float> weights(strips * inputs * kStripRows), feedback(inputs * inputs), scales(groups * rows),
      lows(groups * rows);
  Guarded<int32_t> group(inputs);
  Guarded<uint16_t> codes(weights.size());
  c.random.fill(weights);
  c.random.fill(feedback, 0.3);
  for (auto& value : scales) value = 0.2F + std::fabs(c.random.normal());
  c.random.fill(lows, 0.3);
  for (int64_t k = 0; k < inputs; ++k) group[k] = k * 2 / inputs;
  const std::vector<float> before(weights.begin(), weights.end());
  const bool shifted = c.random.below(2) == 0;
  Sweep s{l.rounding,
          inputs,
          rows,
          0,
          inputs,
          weights.data(),
          feedback.data(),
          group.data(),
          scales.data(),
          scales.data(),
          shifted ? lows.data() : nullptr,
          codes.data()};
  const int64_t middle = inputs / 2;
  s.end = middle;
  c.kernels.sweep(s, 0, strips);
  s.begin = middle;
  s.end = inputs;
  c.kernels.sweep(s, 0, strips);
  for (int64_t row = 0; row < rows; ++row) {
    const int64_t at = row / kStripRows * inputs * kStripRows + row % kStripRows;
    for (int64_t k = 0; k < inputs; ++k) {
      const float scale = scales[group[k] * rows + row], low = shifted ? lows[group[k] * rows + row] : 0.0F;
      const float w = before[static_cast<size_t>(at + k * kStripRows)];
      double target = double{w}, size = std::fabs(target) + std::fabs(double{low});
      for (int64_t j = 0; j < k; ++j) {
        const double term = double{feedback[k * inputs + j]} * double{weights[at + j * kStripRows]};
        target += term;
        size += std::fabs(term);
      }
      const double bound = gamma_of(inputs + 3) * size;
      uint16_t code;
      const float least = l.number((static_cast<float>(target - bound) - low) / scale, &code);
      const float most = l.number((static_cast<float>(target + bound) - low) / scale, &code);
      const float number = l.meant(codes[at + k * kStripRows]), product = number * scale;
      c.within("sweep", least <= number && number <= most ? 0 : 1, 0, 0, "code of input " + std::to_string(k));
      c.within("sweep", weights[at + k * kStripRows], w - (product + low), 0, "miss of input " + std::to_string(k));
    }
  }
}

// As check_sweep, with rows that take of each other too.
void check_sweep_both(Check& c, bool table) {
  const Levels l = levels_of(c, table);
  const int64_t inputs = c.random.from(1, 40), rows = c.random.from(1, 40), groups = 2;
  Guarded<float> weights(rows * inputs), by_input(inputs * inputs), by_row(rows * rows), scales(groups * rows),
      lows(groups * rows), scratch((inputs + 2 * rows) * kAbreast);
  Guarded<int32_t> group(inputs);
  Guarded<uint16_t> codes(weights.size());
  c.random.fill(weights);
  c.random.fill(by_input, 0.2);
  c.random.fill(by_row, 0.2);
  for (auto& value : scales) value = 0.2F + std::fabs(c.random.normal());
  c.random.fill(lows, 0.3);
  for (int64_t k = 0; k < inputs; ++k) group[k] = k * 2 / inputs;
  const std::vector<float> before(weights.begin(), weights.end());
  const bool shifted = c.random.below(2) == 0;
  c.kernels.sweep_both({l.rounding, rows, inputs, weights.data(), by_input.data(), by_row.data(), group.data(),
                        scales.data(), scales.data(), shifted ? lows.data() : nullptr, codes.data(), scratch.data()});
  std::vector<double> passed_on(static_cast<size_t>(rows)), size(passed_on.size());
  for (int64_t k = 0; k < inputs; ++k)
    for (int64_t n = 0; n < rows; ++n) {
      const float scale = scales[group[k] * rows + n], low = shifted ? lows[group[k] * rows + n] : 0.0F;
      const float w = before[static_cast<size_t>(n * inputs + k)], missed = weights[n * inputs + k];
      double from_inputs = 0, sizes = 0;
      for (int64_t j = 0; j < k; ++j) {
        const double term = double{by_input[k * inputs + j]} * double{weights[n * inputs + j]};
        from_inputs += term;
        sizes += std::fabs(term);
      }
      passed_on[static_cast<size_t>(n)] = double{missed} + from_inputs;
      size[static_cast<size_t>(n)] = std::fabs(double{missed}) + sizes;
      double target = double{w} + from_inputs, all = std::fabs(double{w}) + sizes + std::fabs(double{low});
      for (int64_t m = 0; m < n; ++m) {
        target += double{by_row[n * rows + m]} * passed_on[static_cast<size_t>(m)];
        all += std::fabs(double{by_row[n * rows + m]}) * size[static_cast<size_t>(m)];
      }
      const double bound = gamma_of(inputs + rows + 6) * all;
      uint16_t code;
      const float least = l.number((static_cast<float>(target - bound) - low) / scale, &code);
      const float most = l.number((static_cast<float>(target + bound) - low) / scale, &code);
      const float number = l.meant(codes[n * inputs + k]), product = number * scale;
      c.within("sweep_both", least <= number && number <= most ? 0 : 1, 0, 0, "code of input " + std::to_string(k));
      c.within("sweep_both", missed, w - (product + low), 0, "miss of input " + std::to_string(k));
    }
}

void check_gram(Check& c) {
  const int64_t tokens = c.random.from(1, c.full ? 512 : 120), width = c.random.from(1, 100);
  Guarded<float> x(tokens * width), turned(width * tokens);
  Guarded<double> moments(width * width);
  c.random.fill(x);
  for (int64_t t = 0; t < tokens; ++t)
    for (int64_t k = 0; k < width; ++k) turned[k * tokens + t] = x[t * width + k];
  for (auto& value : moments) value = 1;
  for (int64_t begin = 0; begin < width; begin += kGramCols)
    c.kernels.gram(x.data(), turned.data(), width, tokens, begin, std::min(begin + kGramCols, width), width,
                   moments.data(), c.scratch());
  for (int64_t i = 0; i < width; ++i)
    for (int64_t j = 0; j < width; ++j) {
      double exact = 1, size = 0;
      for (int64_t t = 0; t < tokens; ++t) {
        const double term = double{x[t * width + i]} * double{x[t * width + j]};
        exact += term;
        size += std::fabs(term);
      }
      c.within("gram", moments[i * width + j], exact, gamma_of(tokens + 1) * size + 1e-12, "moments");
    }
}

// |A - L L^T| <= gamma(n + 1) |L| |L^T| (Higham 2002, theorem 10.3).
void check_cholesky(Check& c) {
  const int64_t n = c.random.from(1, c.full ? 200 : 140);
  std::vector<double> x(static_cast<size_t>(2 * n * n));
  for (auto& value : x) value = double{c.random.normal()};
  Guarded<double> a(n * n), room(kCholeskyCols * (n + kCholeskyTile) + 8);
  auto* panel = reinterpret_cast<double*>((reinterpret_cast<uintptr_t>(room.data()) + 63) / 64 * 64);
  for (int64_t i = 0; i < n; ++i)
    for (int64_t j = 0; j < n; ++j) {
      for (int64_t t = 0; t < 2 * n; ++t)
        a[i * n + j] += x[static_cast<size_t>(t * n + i)] * x[static_cast<size_t>(t * n + j)];
      a[i * n + j] += i == j ? 0.1 : 0;
    }
  const std::vector<double> before(a.begin(), a.end());
  for (int64_t begin = 0; begin < n; begin += kCholeskyCols) {
    const int64_t end = std::min(begin + kCholeskyCols, n);
    c.within("cholesky", c.kernels.cholesky_diagonal(a.data(), n, begin, end) ? 0 : 1, 0, 0, "a positive pivot");
    const int64_t middle = std::min(n, end + (n - end) / 2 / kCholeskyTile * kCholeskyTile);
    c.kernels.cholesky_solve(a.data(), n, begin, end, panel, end, middle);
    c.kernels.cholesky_solve(a.data(), n, begin, end, panel, middle, n);
    c.kernels.cholesky_subtract(a.data(), n, begin, end, panel, middle, n);
    c.kernels.cholesky_subtract(a.data(), n, begin, end, panel, end, middle);
  }
  for (int64_t i = 0; i < n; ++i)
    for (int64_t j = 0; j <= i; ++j) {
      double product = 0, size = 0;
      for (int64_t k = 0; k <= j; ++k) {
        product += a[i * n + k] * a[j * n + k];
        size += std::fabs(a[i * n + k] * a[j * n + k]);
      }
      c.within("cholesky", product, before[static_cast<size_t>(i * n + j)], 2 * gamma_of(n + 2, 0x1p-53) * size,
               "factor of " + std::to_string(n));
    }
  for (double bad : {0.0, -1.0, std::nan("")}) {
    double one = bad;
    c.within("cholesky", c.kernels.cholesky_diagonal(&one, 1, 0, 1) ? 1 : 0, 0, 0, "no positive pivot");
  }
}

}  // namespace

void check_rounding(Check& c) {
  for (int n = 0; n < (c.full ? 60 : 12); ++n) {
    check_sums(c, n % 2 == 0);
    check_sweep(c, n % 2 == 0);
    check_sweep_both(c, n % 2 == 0);
  }
}

void check_moments(Check& c) {
  for (int n = 0; n < (c.full ? 20 : 3); ++n) {
    check_gram(c);
    check_cholesky(c);
  }
}

void check_integers(Check& c) {
  for (int n = 0; n < (c.full ? 200 : 40); ++n) {
    const int64_t rows = c.random.from(1, 20), pairs = c.random.from(1, 90), blocks = c.random.from(1, 3);
    Guarded<int16_t> inputs(rows * pairs * 2), weight(blocks * pairs * kIntegerChannels * 2);
    for (auto* all : {&inputs, &weight})
      for (auto& value : *all) value = static_cast<int16_t>(n % 4 == 0 ? -128 : c.random.from(-128, 127));
    Guarded<int32_t> got(rows * blocks * kIntegerChannels), exact(got.size());
    c.kernels.integer_product({rows, pairs, inputs.data(), weight.data(), blocks, got.data()});
    kScalarKernels.integer_product({rows, pairs, inputs.data(), weight.data(), blocks, exact.data()});
    c.same("integer_product", got.data(), exact.data(), static_cast<size_t>(got.size()) * 4, "sums");

    const int64_t channels = blocks * kIntegerChannels;
    Guarded<int32_t> multiplier(channels), offset(channels);
    for (auto& value : multiplier) value = static_cast<int32_t>(c.random.engine());
    for (auto& value : offset) value = static_cast<int32_t>(c.random.engine());
    if (n % 3 == 0)
      for (auto& value : got) value = static_cast<int32_t>(c.random.engine());
    std::copy(got.begin(), got.end(), exact.begin());
    const Requantizer by{multiplier.data(),
                         offset.data(),
                         channels,
                         static_cast<int32_t>(c.random.from(0, 12)),
                         static_cast<int32_t>(c.random.from(0, 31)),
                         static_cast<int32_t>(c.random.from(-128, 0)),
                         127};
    c.kernels.requantize(got.data(), rows, by);
    kScalarKernels.requantize(exact.data(), rows, by);
    c.same("requantize", got.data(), exact.data(), static_cast<size_t>(got.size()) * 4, "codes");
  }
}

}  // namespace scrimp
