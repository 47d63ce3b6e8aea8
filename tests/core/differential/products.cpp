// Activations as int8, integer products and float products.
#include "weights.h"

namespace scrimp {
namespace {

struct Quantized {
  Guarded<int8_t> quads;
  Guarded<float> scales;
  Guarded<int32_t> sums;
  Activations a;

  Quantized(int64_t tokens, int64_t cols, int64_t block, int64_t scale_block, float fixed)
      : quads(tokens * ((cols + 64 + 63) / 64 * 64)),
        scales(tokens * ((cols + block - 1) / block)),
        sums(scales.size()),
        a{.tokens = tokens,
          .cols = cols,
          .cols_padded = (cols + 64 + 63) / 64 * 64,
          .block = block,
          .blocks = (cols + block - 1) / block,
          .scale_block = scale_block,
          .fixed_scale = fixed,
          .quads = quads.data(),
          .scales = scales.data(),
          .sums = sums.data()} {}

  // Of token t, input k.
  int32_t code(int64_t t, int64_t k) const {
    const int64_t first = t / kTokenBlock * kTokenBlock, width = std::min(a.tokens - first, kTokenBlock);
    return quads[first * a.cols_padded + (k / 4 * width + t - first) * 4 + k % 4];
  }
  int64_t scale_at(int64_t t, int64_t k) const {
    const int64_t first = t / kTokenBlock * kTokenBlock, width = std::min(a.tokens - first, kTokenBlock);
    return first * a.blocks + k / a.block * width + t - first;
  }
  void set(int64_t t, int64_t k, int8_t code) {
    const int64_t first = t / kTokenBlock * kTokenBlock, width = std::min(a.tokens - first, kTokenBlock);
    quads[first * a.cols_padded + (k / 4 * width + t - first) * 4 + k % 4] = code;
    sums[scale_at(t, k)] += code;
    scales[scale_at(t, k)] = 1.0F;
  }
};

std::string named(const Weights& w, const Activations& a) {
  char text[160];
  std::snprintf(text, sizeof text, "element %d bits %d mins %d group %d scale %d block %d: %dx%d, %d tokens",
                static_cast<int>(w.format.element), w.format.bits, w.format.mins, static_cast<int>(w.group),
                static_cast<int>(w.format.scale_type), static_cast<int>(a.block), static_cast<int>(w.rows),
                static_cast<int>(w.cols), static_cast<int>(a.tokens));
  return text;
}

// The product of stored weights and quantized activations: exact, and how far float32 may be from it. Kernels may cut
// a long sum anywhere, but never below 32 inputs; every piece is rounded to float, then two products and additions;
// a table's factor comes last.
void compare_int8(Check& c, const Weights& w, const Quantized& x, bool exactly) {
  const int64_t tokens = x.a.tokens, tiles = (w.rows + kTileRows - 1) / kTileRows, stride = w.rows + 3;
  Guarded<float> y(tokens * stride);
  const int64_t middle = tiles / 2;  // as two threads would
  c.kernels.linear_int8(w.matrix, x.a, middle, tiles, y.data(), stride, c.scratch());
  c.kernels.linear_int8(w.matrix, x.a, 0, middle, y.data(), stride, c.scratch());
  const int64_t pieces = (w.cols + 31) / 32;
  const double bound = exactly ? 0 : gamma_of(2 * pieces + 5);
  for (int64_t t = 0; t < tokens; ++t) {
    for (int64_t r = 0; r < w.rows; ++r) {
      double exact = 0, size = 0;
      for (int64_t k = 0; k < w.cols; k += 32) {
        int32_t dot = 0, sum = 0;
        for (int64_t i = k; i < std::min(k + 32, w.cols); ++i) {
          dot += w.step_of(r, i) * x.code(t, i);
          sum += x.code(t, i);
        }
        const double scale = x.scales[x.scale_at(t, k)];
        double term = dot * scale * w.scales[w.scale_at(r, k)] * w.matrix.factor;
        exact += term;
        size += std::fabs(term);
        if (!w.format.mins) continue;
        term = sum * scale * w.mins[w.scale_at(r, k)];
        exact += term;
        size += std::fabs(term);
      }
      c.within(exactly ? "linear_int8_exact" : "linear_int8", y[t * stride + r], exact, bound * size, named(w, x.a));
    }
    for (int64_t r = w.rows; r < stride; ++r)
      if (y[t * stride + r] != 0) c.fail("linear_int8", named(w, x.a) + ": wrote past the last row");
  }
}

std::vector<Format> integer_formats() {
  std::vector<Format> all;
  for (int32_t bits : {2, 3, 4, 5, 6, 8})
    for (bool mins : {false, true})
      for (int64_t group : {32, 128, 0}) all.push_back({Element::kInt, bits, mins, group});
  for (auto element : {Element::kTernary, Element::kBinary})
    for (int64_t group : {32, 64, 256, 0}) all.push_back({element, element == Element::kTernary ? 2 : 1, false, group});
  for (auto element : {Element::kTernary, Element::kBinary})
    all.push_back({element, element == Element::kTernary ? 2 : 1, false, 0, true});
  all.push_back({Element::kTernary, 2, true, 64});
  all.push_back({Element::kBinary, 1, true, 32});
  all.push_back({Element::kInt, 4, false, 64, false, ScaleType::kF32});
  all.push_back({Element::kInt, 4, true, 64, false, ScaleType::kBf16});
  all.push_back({Element::kInt, 8, false, 0, true, ScaleType::kF32});
  for (int32_t bits : {2, 3, 4}) {
    for (int64_t group : {32, 64, 0}) all.push_back({Element::kTable, bits, false, group});
    all.push_back({Element::kTable, bits, false, 32, false, ScaleType::kE8m0});
  }
  all.push_back({Element::kTable, 4, false, 0, true, ScaleType::kF32});
  return all;
}

// A block that the kernels may meet with these groups.
int64_t block_for(Random& random, const Format& format, int64_t cols) {
  const int64_t block = random.one_of<int64_t>({32, 64, 128, 256, 4096});
  if (format.group == 0) return std::min(block, cols);
  return std::min({block, format.group, cols});
}

constexpr int64_t kShapes[][2] = {{1, 4}, {16, 64}, {33, 172}, {48, 341}, {17, 1300}, {70, 576}, {20, 2600}};

}  // namespace

void check_quantize(Check& c) {
  for (int n = 0; n < (c.full ? 400 : 60); ++n) {
    const int64_t tokens = c.random.from(1, 25), cols = c.random.from(1, 400);
    const int64_t block = std::min(cols, c.random.one_of<int64_t>({32, 64, 128, 256, 4096}));
    const int64_t scale_block = block < cols ? block * c.random.from(1, 3) : block;
    Guarded<float> x(tokens * cols);
    for (int64_t t = 0; t < tokens; ++t) {
      const double size = std::exp2(c.random.one_of({0, 1, -10, 10, -140, 120}));
      for (int64_t k = 0; k < cols; ++k) x[t * cols + k] = c.random.below(20) == 0 ? 0.0F : c.random.normal(size);
      if (c.random.below(8) == 0) x[t * cols + c.random.below(cols)] = c.random.one_of({NAN, INFINITY, -INFINITY});
      if (c.random.below(8) == 0) std::fill_n(x.data() + t * cols, cols, 0.0F);
    }
    const float fixed = c.random.below(3) == 0 ? 0.01F : 0.0F;
    Quantized got(tokens, cols, block, scale_block, fixed), exact(tokens, cols, block, scale_block, fixed);
    const int64_t blocks = (tokens + kTokenBlock - 1) / kTokenBlock;
    c.kernels.quantize(x.data(), cols, 0, blocks, got.a);
    kScalarKernels.quantize(x.data(), cols, 0, blocks, exact.a);
    const std::string what = std::to_string(tokens) + "x" + std::to_string(cols);
    c.same("quantize", got.quads.data(), exact.quads.data(), static_cast<size_t>(got.quads.size()), what + " codes");
    c.same("quantize", got.sums.data(), exact.sums.data(), static_cast<size_t>(got.sums.size()) * 4, what + " sums");
    for (int64_t i = 0; i < got.scales.size(); ++i) {  // a NaN is one whatever its bits
      const bool both = std::isnan(got.scales[i]) && std::isnan(exact.scales[i]);
      if (!both) c.same("quantize", &got.scales[i], &exact.scales[i], 4, what + " scale");
    }
  }
}

void check_linear_int8(Check& c) {
  for (const Format& format : integer_formats()) {
    const int64_t cases = c.full ? 30 : 5;
    for (int64_t n = 0; n < cases; ++n) {
      const bool fixed = c.full ? n < 7 : n == 0;
      const auto& shape = kShapes[c.full ? n % 7 : c.random.below(7)];
      const int64_t rows = fixed ? shape[0] : c.random.from(1, 50), cols = fixed ? shape[1] : c.random.from(1, 400);
      const int64_t tokens = n < 2 ? c.random.from(1, 2) : c.random.from(1, 25);
      const Fill fill = n % 3 == 0 ? Fill::kRandom : n % 3 == 1 ? Fill::kWhole : Fill::kLargest;
      const Weights w = random_weights(c.random, format, rows, cols, fill);
      Quantized x(tokens, cols, block_for(c.random, format, cols), 0, 0.0F);
      x.a.scale_block = x.a.block;
      if (fill == Fill::kWhole) {
        for (int64_t t = 0; t < tokens; ++t)
          for (int64_t k = 0; k < cols; ++k) x.set(t, k, static_cast<int8_t>(c.random.from(-127, 127)));
        compare_int8(c, w, x, true);
        continue;
      }
      Guarded<float> floats(tokens * cols);
      c.random.fill(floats);
      if (fill == Fill::kLargest)
        for (auto& value : floats) value = n % 2 == 0 ? 1.0F : -1.0F;
      kScalarKernels.quantize(floats.data(), cols, 0, (tokens + kTokenBlock - 1) / kTokenBlock, x.a);
      compare_int8(c, w, x, false);
    }
  }
}

// Bound: cols + 1 roundings.
void check_linear_f32(Check& c) {
  std::vector<Format> formats = integer_formats();
  for (auto element : {Element::kF32, Element::kF16, Element::kBf16}) {
    formats.push_back({element, element == Element::kF32 ? 32 : 16, false, 0, false, ScaleType::kNone});
    formats.push_back({element, element == Element::kF32 ? 32 : 16, false, 32, false, ScaleType::kF32});
  }
  for (const Format& format : formats) {
    for (int64_t n = 0; n < (c.full ? 14 : 2); ++n) {
      const auto& shape = kShapes[c.full ? n % 7 : c.random.below(6)];
      const int64_t rows = shape[0], cols = shape[1], tokens = n % 2 == 0 ? c.random.from(1, 2) : c.random.from(1, 14);
      const Weights w = random_weights(c.random, format, rows, cols, Fill::kRandom);
      const int64_t stride = (cols + 3) / 4 * 4;
      Guarded<float> x(tokens * stride), y(tokens * rows);
      c.random.fill(x);
      c.kernels.linear_f32(w.matrix, x.data(), stride, tokens, 0, (rows + kTileRows - 1) / kTileRows, y.data(), rows,
                           c.scratch());
      for (int64_t r = 0; r < rows; ++r) {
        std::vector<double> exact(static_cast<size_t>(tokens)), size(exact);
        for (int64_t k = 0; k < cols; ++k) {
          const double value = w.value(r, k);
          for (int64_t t = 0; t < tokens; ++t) {
            exact[static_cast<size_t>(t)] += value * x[t * stride + k];
            size[static_cast<size_t>(t)] += std::fabs(value * x[t * stride + k]);
          }
        }
        for (int64_t t = 0; t < tokens; ++t) {
          const auto i = static_cast<size_t>(t);
          c.within(
              "linear_f32", y[t * rows + r], exact[i], gamma_of(cols + 1) * size[i],
              "element " + std::to_string(static_cast<int>(format.element)) + " bits " + std::to_string(format.bits));
        }
      }
    }
  }
}

}  // namespace scrimp
