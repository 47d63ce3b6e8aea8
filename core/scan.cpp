#include "scan.h"

#include <algorithm>
#include <array>
#include <vector>

namespace scrimp {
namespace {

constexpr int64_t kBlocksAtOnce = 64;  // with their weights they stay in the first cache

// Of some blocks: what the best candidate so far explains, its fit and its factor.
struct Best {
  std::array<double, kBlocksAtOnce> gain{}, fit{}, factor{};
};

struct Scan {
  const float* w;
  int64_t stride, inputs, count;
  float half;
  const double* peaks;
  const float* ones;
  const Kernels& kernels;

  void attempt(const std::array<double, kBlocksAtOnce>& factors, Best& best) const {
    std::array<float, kBlocksAtOnce> scales{}, divisors{};
    for (int64_t m = 0; m < count; ++m) {
      const auto at = static_cast<size_t>(m);
      scales[at] = static_cast<float>(peaks[m] / (factors[at] * static_cast<double>(half)));
      divisors[at] = scales[at] == 0.0F ? __builtin_inff() : scales[at];
    }
    for (const double sign : {1.0, -1.0}) {
      const Rounding codes{sign > 0 ? -half : 1 - half, sign > 0 ? half - 1 : half, 0, nullptr, nullptr, nullptr};
      std::array<float, 4 * kBlocksAtOnce> sums{};
      kernels.weighted_sums(codes, w, stride, ones, inputs, count, scales.data(), divisors.data(), nullptr,
                            sums.data());
      for (int64_t m = 0; m < count; ++m) {
        const auto at = static_cast<size_t>(m);
        const double square = static_cast<double>(sums[static_cast<size_t>(2 * count + m)]);
        const double product = static_cast<double>(sums[static_cast<size_t>(3 * count + m)]);
        const double fit = product / square, gain = product * fit;
        if (gain > best.gain[at]) {  // false where all codes are 0
          best.gain[at] = gain;
          best.fit[at] = sign * fit;
          best.factor[at] = factors[at];
        }
      }
    }
  }
};

}  // namespace

void scan_symmetric(const float* w, int64_t inputs, int64_t blocks, float half, const double* peaks,
                    std::span<const double> coarse, std::span<const double> fine, double* fits,
                    const Kernels& kernels) {
  const std::vector<float> ones(static_cast<size_t>(inputs), 1.0F);
  for (int64_t begin = 0; begin < blocks; begin += kBlocksAtOnce) {
    const int64_t count = std::min(kBlocksAtOnce, blocks - begin);
    const Scan scan{w + begin, blocks, inputs, count, half, peaks + begin, ones.data(), kernels};
    Best best;
    best.factor.fill(1.0);
    std::array<double, kBlocksAtOnce> factors{};
    for (const double factor : coarse) {
      factors.fill(factor);
      scan.attempt(factors, best);
    }
    const auto around = best.factor;
    for (const double factor : fine) {
      for (size_t m = 0; m < factors.size(); ++m) factors[m] = around[m] * factor;
      scan.attempt(factors, best);
    }
    std::copy_n(best.fit.begin(), count, fits + begin);
  }
}

}  // namespace scrimp
