// The float product every many-token kernel here is made of. Included inside the namespace of an instruction set.
//
//   y[t][r] (+)= sum_k panel[k][r] * x[t][k]
//
// A panel holds rows side by side, so lanes are rows; an activation is broadcast and feeds kVecs multiply-adds.
// Error: each y is `inner` fused multiply-adds in the order of k (up to four interleaved sums when there are few
// tokens): |y - exact| <= gamma(inner) * sum_k |panel * x|, gamma(n) = n u / (1 - n u), u = 2^-24.

// kVecs vectors of rows times kTokens tokens, all sums in registers. `rows` of the vectors are written.
template <int kVecs, int kTokens>
void product_block(const float* panel, int64_t panel_stride, int64_t rows, int64_t inner, const float* x,
                   int64_t x_stride, float* y, int64_t y_stride, bool accumulate) {
  // Multiply-adds have a latency of 4 at two a cycle: a small block needs several sums per output to keep busy.
  constexpr int kSums = kVecs * kTokens >= 8 ? 1 : kVecs * kTokens >= 4 ? 2 : 4;
  Vec sums[kSums][kTokens][kVecs];
#pragma GCC unroll 4
  for (int s = 0; s < kSums; ++s)
#pragma GCC unroll 16
    for (int t = 0; t < kTokens; ++t)
#pragma GCC unroll 2
      for (int v = 0; v < kVecs; ++v) sums[s][t][v] = broadcast(0.0F);

  int64_t k = 0;
  for (; k + kSums <= inner; k += kSums) {
#pragma GCC unroll 4
    for (int s = 0; s < kSums; ++s) {
      Vec weights[kVecs];
#pragma GCC unroll 2
      for (int v = 0; v < kVecs; ++v) weights[v] = load(panel + (k + s) * panel_stride + v * kLanes);
#pragma GCC unroll 16
      for (int t = 0; t < kTokens; ++t) {
        const Vec activation = broadcast(x[t * x_stride + k + s]);
#pragma GCC unroll 2
        for (int v = 0; v < kVecs; ++v) sums[s][t][v] = fma(weights[v], activation, sums[s][t][v]);
      }
    }
  }
  for (; k < inner; ++k)
#pragma GCC unroll 16
    for (int t = 0; t < kTokens; ++t)
#pragma GCC unroll 2
      for (int v = 0; v < kVecs; ++v)
        sums[0][t][v] = fma(load(panel + k * panel_stride + v * kLanes), broadcast(x[t * x_stride + k]), sums[0][t][v]);

#pragma GCC unroll 16
  for (int t = 0; t < kTokens; ++t) {
#pragma GCC unroll 2
    for (int v = 0; v < kVecs; ++v) {
      Vec total = sums[0][t][v];
#pragma GCC unroll 4
      for (int s = 1; s < kSums; ++s) total = total + sums[s][t][v];
      float* to = y + t * y_stride + v * kLanes;
      const int64_t count = rows - v * kLanes;
      if (count >= kLanes) {
        store(to, accumulate ? load(to) + total : total);
      } else if (count > 0) {
        store_first(to, accumulate ? load_first(to, count, total) + total : total, count);
      }
    }
  }
}

// The last tokens < kTokens + 1, in one block.
template <int kVecs, int kTokens>
void product_rest(int64_t tokens, const float* panel, int64_t panel_stride, int64_t rows, int64_t inner, const float* x,
                  int64_t x_stride, float* y, int64_t y_stride, bool accumulate) {
  if (tokens == kTokens) {
    product_block<kVecs, kTokens>(panel, panel_stride, rows, inner, x, x_stride, y, y_stride, accumulate);
  } else if constexpr (kTokens > 1) {
    product_rest<kVecs, kTokens - 1>(tokens, panel, panel_stride, rows, inner, x, x_stride, y, y_stride, accumulate);
  }
}

template <int kVecs>
void product_rows(const float* panel, int64_t panel_stride, int64_t rows, int64_t inner, const float* x,
                  int64_t x_stride, int64_t tokens, float* y, int64_t y_stride, bool accumulate) {
  int64_t t = 0;
  for (; t + kProductTokens <= tokens; t += kProductTokens)
    product_block<kVecs, kProductTokens>(panel, panel_stride, rows, inner, x + t * x_stride, x_stride, y + t * y_stride,
                                         y_stride, accumulate);
  product_rest<kVecs, kProductTokens - 1>(tokens - t, panel, panel_stride, rows, inner, x + t * x_stride, x_stride,
                                          y + t * y_stride, y_stride, accumulate);
}

// The whole product for any number of rows and tokens; panel rows are readable up to a multiple of kLanes.
inline void product(const float* panel, int64_t panel_stride, int64_t rows, int64_t inner, const float* x,
                    int64_t x_stride, int64_t tokens, float* y, int64_t y_stride, bool accumulate) {
  for (int64_t r = 0; r < rows; r += kProductVecs * kLanes) {
    if (rows - r > kLanes) {
      product_rows<kProductVecs>(panel + r, panel_stride, rows - r, inner, x, x_stride, tokens, y + r, y_stride,
                                 accumulate);
    } else {
      product_rows<1>(panel + r, panel_stride, rows - r, inner, x, x_stride, tokens, y + r, y_stride, accumulate);
    }
  }
}
