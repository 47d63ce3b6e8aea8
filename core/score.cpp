#include "score.h"

#include <atomic>

namespace scrimp {
void score(const float* logits, const float* reference, const int32_t* targets, int64_t rows, int64_t vocab,
           const Scores& out, Pool& pool, const Kernels& kernels) {
  std::atomic<int64_t> next{0};
  pool.run([&](int) {
    for (int64_t row = next.fetch_add(1); row < rows; row = next.fetch_add(1)) {
      const float* q = logits + row * vocab;
      int64_t top = 0, reference_top = 0;
      const float lse = kernels.log_sum_exp(q, vocab, &top);
      out.nll[row] = static_cast<double>(lse) - static_cast<double>(q[targets[row]]);
      if (!reference) continue;
      const float* p = reference + row * vocab;
      const float reference_lse = kernels.log_sum_exp(p, vocab, &reference_top);
      out.nll_reference[row] = static_cast<double>(reference_lse) - static_cast<double>(p[targets[row]]);
      out.kl[row] = kernels.divergence(p, reference_lse, q, lse, vocab);
      out.same_top[row] = top == reference_top;
    }
  });
}

}  // namespace scrimp
