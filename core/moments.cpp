#include "moments.h"

#include <algorithm>
#include <atomic>
#include <cstring>
#include <utility>
#include <vector>

namespace scrimp {
namespace {

constexpr int64_t kRowsAtOnce = 4 * kCholeskyTile;  // of a factor, claimed by a thread

template <typename T>
T* aligned(T* memory) {
  return reinterpret_cast<T*>((reinterpret_cast<uintptr_t>(memory) + 63) / 64 * 64);
}

// Threads claim pieces 0 ... count-1 and do them; when it returns, all are done.
template <class Do>
void each(Pool& pool, int64_t count, const Do& piece_of) {
  std::atomic<int64_t> next{0};
  pool.run([&](int thread) {
    for (int64_t piece; (piece = next.fetch_add(1)) < count;) piece_of(thread, piece);
  });
}

// moments (rows, width) += left^T x; with upper only that triangle is asked for, where left is x.
void add_products(const float* left, int64_t rows, const float* x, int64_t tokens, int64_t width, bool upper,
                  double* moments, Pool& pool, const Kernels& kernels) {
  std::vector<float> turned(static_cast<size_t>(rows * std::min(tokens, kGramTokens)));
  const size_t scratch_bytes = (kernels.scratch_bytes + 63) / 64 * 64;
  std::vector<uint8_t> room(scratch_bytes * static_cast<size_t>(pool.threads()) + 64);
  uint8_t* scratch = aligned(room.data());
  const int64_t columns = (width + kGramCols - 1) / kGramCols;
  for (int64_t at = 0; at < tokens; at += kGramTokens) {
    const int64_t count = std::min(tokens - at, kGramTokens);
    const float *a = left + at * rows, *b = x + at * width;
    each(pool, (rows + kGramCols - 1) / kGramCols, [&](int, int64_t piece) {
      const int64_t end = std::min((piece + 1) * kGramCols, rows);
      for (int64_t t = 0; t < count; ++t)
        for (int64_t k = piece * kGramCols; k < end; ++k) turned[static_cast<size_t>(k * count + t)] = a[t * rows + k];
    });
    each(pool, columns, [&](int thread, int64_t piece) {
      const int64_t begin = (columns - 1 - piece) * kGramCols;  // the longest columns first
      const int64_t end = std::min(begin + kGramCols, width);
      kernels.gram(b, turned.data(), width, count, begin, end, upper ? end : rows, moments,
                   scratch + static_cast<size_t>(thread) * scratch_bytes);
    });
  }
}

}  // namespace

void add_moments(const float* x, int64_t tokens, int64_t width, double* moments, Pool& pool, const Kernels& kernels) {
  add_products(x, width, x, tokens, width, true, moments, pool, kernels);
}

void add_cross_moments(const float* a, int64_t rows, const float* b, int64_t tokens, int64_t width, double* moments,
                       Pool& pool, const Kernels& kernels) {
  add_products(a, rows, b, tokens, width, false, moments, pool, kernels);
}

bool cholesky(double* a, int64_t n, Pool& pool, const Kernels& kernels) {
  std::vector<double> room(static_cast<size_t>(kCholeskyCols * (n + kCholeskyTile) + 8));
  double* panel = aligned(room.data());
  for (int64_t begin = 0; begin < n; begin += kCholeskyCols) {
    const int64_t end = std::min(begin + kCholeskyCols, n), pieces = (n - end + kRowsAtOnce - 1) / kRowsAtOnce;
    if (!kernels.cholesky_diagonal(a, n, begin, end)) return false;
    const auto rows_of = [&](int64_t piece) {
      const int64_t from = end + (pieces - 1 - piece) * kRowsAtOnce;  // the longest rows first
      return std::pair{from, std::min(from + kRowsAtOnce, n)};
    };
    each(pool, pieces, [&](int, int64_t piece) {
      const auto [from, until] = rows_of(piece);
      kernels.cholesky_solve(a, n, begin, end, panel, from, until);
    });
    each(pool, pieces, [&](int, int64_t piece) {
      const auto [from, until] = rows_of(piece);
      kernels.cholesky_subtract(a, n, begin, end, panel, from, until);
    });
  }
  for (int64_t row = 0; row < n; ++row) std::memset(a + row * n + row + 1, 0, static_cast<size_t>(n - row - 1) * 8);
  return true;
}

}  // namespace scrimp
