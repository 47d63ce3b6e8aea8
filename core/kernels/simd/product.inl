// The float product that linear_f32 and attention are made of. Included inside the namespace of an instruction set.
//
//   y[t][r] (+)= sum_k panel[k][r] * x[t][k]
//
// A panel holds rows side by side, so lanes are rows; an activation is broadcast and feeds kVecs multiply-adds. Any
// type is a panel whose `at(k, r)` gives rows r .. r + kLanes - 1 of input k; or, of kInputsAtOnce that it has
// together, `at(k, j, r)` input k + j. `x` may have two inputs in each of its numbers, where there is an `fma` of such.
// Every sum is one chain of fused multiply-adds in the order of k, whatever the block: an output has the same bits for
// any number of tokens, any split of rows over threads, and AVX2 or AVX-512.
//
// Error: |y - exact| <= gamma(inner) * sum_k |panel * x|, where gamma(n) = n u / (1 - n u), u = 2^-24.

namespace {

// Multiply-adds have a latency of 4 at two a cycle, so 8 sums keep busy: up to kProductFew take more rows at a time,
// which also spares them a part of the loads of activations.
constexpr int kProductFewVecs = 4;

struct FloatPanel {
  const float* numbers;
  int64_t stride;

  Vec at(int64_t k, int64_t r) const { return load(numbers + k * stride + r); }
};

template <class Panel>
constexpr int inputs_at_once() {
  if constexpr (requires { Panel::kInputsAtOnce; }) return Panel::kInputsAtOnce;
  return 1;
}

template <class Panel>
inline auto weights_at(const Panel& panel, int64_t k, int j, int64_t r) {
  if constexpr (inputs_at_once<Panel>() > 1) {
    return panel.at(k, j, r);
  } else {
    return panel.at(k, r);
  }
}

// kVecs vectors of rows from `first` on times kTokens tokens, all sums in registers. `rows` of the vectors are written.
template <int kVecs, int kTokens, class Panel, class Input>
void product_block(const Panel& panel, int64_t first, int64_t rows, int64_t inner, const Input* x, int64_t x_stride,
                   float* y, int64_t y_stride, bool accumulate) {
  Vec sums[kTokens][kVecs];
#pragma GCC unroll 16
  for (int t = 0; t < kTokens; ++t)
#pragma GCC unroll 4
    for (int v = 0; v < kVecs; ++v) sums[t][v] = broadcast(0.0F);

  constexpr int kAtOnce = inputs_at_once<Panel>();
  for (int64_t k = 0; k < inner; k += kAtOnce) {
#pragma GCC unroll 2
    for (int j = 0; j < kAtOnce; ++j) {
      decltype(weights_at(panel, k, j, first)) weights[kVecs];
#pragma GCC unroll 4
      for (int v = 0; v < kVecs; ++v) weights[v] = weights_at(panel, k, j, first + v * kLanes);
#pragma GCC unroll 16
      for (int t = 0; t < kTokens; ++t) {
        const auto activation = broadcast(x[t * x_stride + k + j]);
#pragma GCC unroll 4
        for (int v = 0; v < kVecs; ++v) sums[t][v] = fma(weights[v], activation, sums[t][v]);
      }
    }
  }

#pragma GCC unroll 16
  for (int t = 0; t < kTokens; ++t) {
#pragma GCC unroll 4
    for (int v = 0; v < kVecs; ++v) {
      const Vec sum = sums[t][v];
      float* to = y + t * y_stride + v * kLanes;
      const int64_t count = rows - v * kLanes;
      if (count >= kLanes) {
        store(to, accumulate ? load(to) + sum : sum);
      } else if (count > 0) {
        store_first(to, accumulate ? load_first(to, count, sum) + sum : sum, count);
      }
    }
  }
}

// The last tokens, at most kTokens, in one block.
template <int kVecs, int kTokens, class Panel, class Input>
void product_rest(int64_t tokens, const Panel& panel, int64_t first, int64_t rows, int64_t inner, const Input* x,
                  int64_t x_stride, float* y, int64_t y_stride, bool accumulate) {
  if (tokens == kTokens) {
    product_block<kVecs, kTokens>(panel, first, rows, inner, x, x_stride, y, y_stride, accumulate);
  } else if constexpr (kTokens > 1) {
    product_rest<kVecs, kTokens - 1>(tokens, panel, first, rows, inner, x, x_stride, y, y_stride, accumulate);
  }
}

template <int kVecs, class Panel, class Input>
void product_rows(const Panel& panel, int64_t first, int64_t rows, int64_t inner, const Input* x, int64_t x_stride,
                  int64_t tokens, float* y, int64_t y_stride, bool accumulate) {
  int64_t t = 0;
  for (; t + kProductTokens <= tokens; t += kProductTokens)
    product_block<kVecs, kProductTokens>(panel, first, rows, inner, x + t * x_stride, x_stride, y + t * y_stride,
                                         y_stride, accumulate);
  product_rest<kVecs, kProductTokens - 1>(tokens - t, panel, first, rows, inner, x + t * x_stride, x_stride,
                                          y + t * y_stride, y_stride, accumulate);
}

// The whole product for any number of rows and tokens; panel rows are readable up to a multiple of kLanes. `inner` is a
// multiple of what the panel has at once.
template <class Panel, class Input>
inline void product(const Panel& panel, int64_t rows, int64_t inner, const Input* x, int64_t x_stride, int64_t tokens,
                    float* y, int64_t y_stride, bool accumulate) {
  int64_t r = 0;
  if (tokens <= kProductFew)
    for (; rows - r > (kProductFewVecs - 1) * kLanes; r += kProductFewVecs * kLanes)
      product_rest<kProductFewVecs, kProductFew>(tokens, panel, r, rows - r, inner, x, x_stride, y + r, y_stride,
                                                 accumulate);
  for (; rows - r > kLanes; r += kProductVecs * kLanes)
    product_rows<kProductVecs>(panel, r, rows - r, inner, x, x_stride, tokens, y + r, y_stride, accumulate);
  if (r < rows) product_rows<1>(panel, r, rows - r, inner, x, x_stride, tokens, y + r, y_stride, accumulate);
}

// The panels that tiles of a matrix are multiplied as: f(tile, rows, k, inner) for `rows` rows from a tile on and
// `inner` inputs, at most `most`, from k on.
template <class F>
inline void each_panel(const Matrix& w, int64_t tokens, int64_t tile_begin, int64_t tile_end, int64_t most, F f) {
  const int64_t at_once = (tokens <= kProductFew ? kProductFewVecs : kProductVecs) * kLanes / kTileRows;
  for (int64_t tile = tile_begin; tile < tile_end; tile += at_once) {
    const int64_t end = tile_end - tile < at_once ? tile_end : tile + at_once;
    const int64_t rows = (end * kTileRows < w.rows ? end * kTileRows : w.rows) - tile * kTileRows;
    for (int64_t k = 0; k < w.cols; k += most) f(tile, rows, k, w.cols - k < most ? w.cols - k : most);
  }
}

}  // namespace
