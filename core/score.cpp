#include "score.h"

#include <atomic>
#include <chrono>
#include <cstring>
#include <memory>

namespace scrimp {
namespace {

// Sum of 8 independent lanes of 64-bit words: the compiler vectorises it, and memory is the limit.
uint64_t read_all(const uint64_t* words, int64_t count) {
  uint64_t lanes[8] = {};
  for (int64_t i = 0; i + 8 <= count; i += 8) {
    for (int64_t lane = 0; lane < 8; ++lane) lanes[lane] ^= words[i + lane];
  }
  uint64_t all = 0;
  for (uint64_t lane : lanes) all ^= lane;
  return all;
}

}  // namespace

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

void read_bandwidth(int64_t bytes, int threads, int repeats, double* gb_per_s) {
  using Clock = std::chrono::steady_clock;
  const int64_t words = bytes / 8 / threads / 8 * 8;
  const std::unique_ptr<uint64_t[]> memory(new uint64_t[static_cast<size_t>(words * threads)]);
  Pool pool(threads);
  std::atomic<uint64_t> sink{0};
  pool.run([&](int thread) { std::memset(memory.get() + thread * words, 1 + thread, static_cast<size_t>(words) * 8); });
  for (int repeat = 0; repeat < repeats; ++repeat) {
    const auto begin = Clock::now();
    pool.run([&](int thread) { sink.fetch_xor(read_all(memory.get() + thread * words, words)); });
    const double seconds = std::chrono::duration<double>(Clock::now() - begin).count();
    gb_per_s[repeat] = static_cast<double>(words * threads * 8) / seconds / 1e9;
  }
}

}  // namespace scrimp
