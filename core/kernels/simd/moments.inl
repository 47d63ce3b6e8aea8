// Second moments of activations, and the Cholesky factor of such a matrix. Included inside the namespace of an
// instruction set, after product.inl.
//
// Every element is a sum in one order, whatever the threads: the same bits for any number of them.

namespace {

constexpr int64_t kGramRows = 96;  // of the moments at a time: with their tokens they stay in the second cache
static_assert(kGramRows % kProductTokens == 0);
static_assert((kGramTokens + kGramRows) * kGramCols * 4 <= static_cast<int64_t>(kScratchBytes));

}  // namespace

void gram(const float* x, const float* turned, int64_t width, int64_t tokens, int64_t begin, int64_t end,
          int64_t row_end, double* moments, uint8_t* scratch) {
  constexpr int64_t kPanel = kProductVecs * kLanes;
  float* panel = reinterpret_cast<float*>(scratch);
  float* sums = panel + kGramTokens * kGramCols;
  const int64_t cols = end - begin;
  for (int64_t c = 0; c < cols; c += kPanel) {  // panels of product_block, each contiguous
    const int64_t some = cols - c < kPanel ? cols - c : kPanel;
    for (int64_t t = 0; t < tokens; ++t) {
      float* to = panel + (c * tokens + t * kPanel);
      memcpy(to, x + t * width + begin + c, static_cast<size_t>(some) * sizeof(float));
      memset(to + some, 0, static_cast<size_t>(kPanel - some) * sizeof(float));
    }
  }
  for (int64_t row = 0; row < row_end; row += kGramRows) {
    const int64_t rows = row_end - row < kGramRows ? row_end - row : kGramRows;
    for (int64_t c = 0; c < cols; c += kPanel)
      product(FloatPanel{panel + c * tokens, kPanel}, cols - c < kPanel ? cols - c : kPanel, tokens,
              turned + row * tokens, tokens, rows, sums + c, kGramCols, false);
    for (int64_t r = 0; r < rows; ++r) {
      double* to = moments + (row + r) * width + begin;
      for (int64_t c = 0; c < cols; ++c) to[c] += static_cast<double>(sums[r * kGramCols + c]);
    }
  }
}

bool cholesky_diagonal(double* a, int64_t n, int64_t begin, int64_t end) {
  for (int64_t k = begin; k < end; ++k) {
    for (int64_t j = begin; j <= k; ++j) {
      double rest = a[k * n + j];
      for (int64_t i = begin; i < j; ++i) rest -= a[k * n + i] * a[j * n + i];
      if (j < k) {
        a[k * n + j] = rest / a[j * n + j];
      } else if (rest > 0.0) {
        a[k * n + k] = ::sqrt(rest);
      } else {
        return false;
      }
    }
  }
  return true;
}

namespace {

using Doubles = double __attribute__((vector_size(kLanes * 4), may_alias));
constexpr int kTileVecs = static_cast<int>(kCholeskyTile * 8 / sizeof(Doubles));

}  // namespace

void cholesky_solve(double* a, int64_t n, int64_t begin, int64_t end, double* panel, int64_t row_begin,
                    int64_t row_end) {
  const int64_t width = end - begin;
  for (int64_t row = row_begin; row < row_end; row += kCholeskyTile) {
    const int64_t rows = row_end - row < kCholeskyTile ? row_end - row : kCholeskyTile;
    double* x = panel + (row - end) * kCholeskyCols;  // [64][8]: rows side by side
    memset(x, 0, static_cast<size_t>(kCholeskyTile * kCholeskyCols) * sizeof(double));
    for (int64_t r = 0; r < rows; ++r)
      for (int64_t j = 0; j < width; ++j) x[j * kCholeskyTile + r] = a[(row + r) * n + begin + j];
    auto* tile = reinterpret_cast<Doubles*>(x);
    for (int64_t j = 0; j < width; ++j) {
      const double* l = a + (begin + j) * n + begin;
      Doubles rest[kTileVecs];
      for (int v = 0; v < kTileVecs; ++v) rest[v] = tile[j * kTileVecs + v];
      for (int64_t i = 0; i < j; ++i)
        for (int v = 0; v < kTileVecs; ++v) rest[v] -= l[i] * tile[i * kTileVecs + v];
      for (int v = 0; v < kTileVecs; ++v) tile[j * kTileVecs + v] = rest[v] / l[j];
    }
    for (int64_t r = 0; r < rows; ++r)
      for (int64_t j = 0; j < width; ++j) a[(row + r) * n + begin + j] = x[j * kCholeskyTile + r];
  }
}

namespace {

template <int kRows>
void subtract_rows(double* a, int64_t n, int64_t begin, int64_t end, const double* panel, int64_t row) {
  for (int64_t col = end; col < row + kRows; col += kCholeskyTile) {
    const double* tile = panel + (col - end) * kCholeskyCols;
    const double* left = a + row * n + begin;
    Doubles sums[kRows][kTileVecs] = {};
    for (int64_t k = 0; k < end - begin; ++k) {
#pragma GCC unroll 4
      for (int v = 0; v < kTileVecs; ++v) {
        Doubles right;
        memcpy(&right, tile + k * kCholeskyTile + v * kLanes / 2, sizeof right);
#pragma GCC unroll 4
        for (int r = 0; r < kRows; ++r) sums[r][v] += left[r * n + k] * right;
      }
    }
    double found[kRows][kCholeskyTile];
    memcpy(found, sums, sizeof found);
    const int64_t cols = n - col < kCholeskyTile ? n - col : kCholeskyTile;
    for (int r = 0; r < kRows; ++r)
      for (int64_t c = 0; c < cols; ++c) a[(row + r) * n + col + c] -= found[r][c];
  }
}

}  // namespace

void cholesky_subtract(double* a, int64_t n, int64_t begin, int64_t end, const double* panel, int64_t row_begin,
                       int64_t row_end) {
  constexpr int kRows = 4;
  int64_t row = row_begin;
  for (; row + kRows <= row_end; row += kRows) subtract_rows<kRows>(a, n, begin, end, panel, row);
  for (; row < row_end; ++row) subtract_rows<1>(a, n, begin, end, panel, row);
}
