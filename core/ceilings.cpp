#include "ceilings.h"

#include <atomic>
#include <chrono>
#include <cstring>

#include "pages.h"
#include "pool.h"

namespace scrimp {
namespace {

constexpr int64_t kUnit = 512;  // bytes that every kernel reads at a time

using Clock = std::chrono::steady_clock;

double seconds_since(Clock::time_point begin) { return std::chrono::duration<double>(Clock::now() - begin).count(); }

}  // namespace

void read_bandwidth(const Kernels& kernels, int64_t bytes, int64_t least, int threads, int repeats, double* gb_per_s) {
  const int64_t each = bytes / threads / kUnit * kUnit, times = each >= least ? 1 : (least + each - 1) / each;
  const auto memory = allocate<uint8_t>(each * threads, true);
  Pool pool(threads);
  std::atomic<uint64_t> sink{0};
  pool.run([&](int thread) { std::memset(memory.get() + thread * each, 1 + thread, static_cast<size_t>(each)); });
  for (int repeat = 0; repeat < repeats; ++repeat) {
    const auto begin = Clock::now();
    pool.run([&](int thread) {
      for (int64_t i = 0; i < times; ++i) sink.fetch_xor(kernels.read(memory.get() + thread * each, each));
    });
    gb_per_s[repeat] = static_cast<double>(each * threads * times) / seconds_since(begin) / 1e9;
  }
}

double read_arrays(const Kernels& kernels, const std::vector<std::pair<const uint8_t*, int64_t>>& arrays, int threads) {
  Pool pool(threads);
  std::atomic<uint64_t> sink{0};
  std::atomic<int64_t> total{0};
  pool.run([](int) {});  // wakes the threads
  const auto begin = Clock::now();
  pool.run([&](int thread) {
    int64_t bytes = 0;
    uint64_t seen = 0;
    for (const auto& [from, size] : arrays) {
      const int64_t units = size / kUnit, first = units * thread / threads, last = units * (thread + 1) / threads;
      seen ^= kernels.read(from + first * kUnit, (last - first) * kUnit);
      bytes += (last - first) * kUnit;
    }
    sink.fetch_xor(seen);
    total.fetch_add(bytes);
  });
  return static_cast<double>(total) / seconds_since(begin) / 1e9;
}

void peak(int64_t (*kernel)(int64_t), int threads, int repeats, double* g_per_s) {
  Pool pool(threads);
  std::atomic<int64_t> sink{0};
  constexpr int64_t kRounds = 1 << 17;  // half a millisecond of AVX-512, a few of plain code
  const auto run = [&] {
    const auto begin = Clock::now();
    pool.run([&](int) { sink.fetch_xor(kernel(kRounds)); });
    return seconds_since(begin);
  };
  run();  // wakes the threads
  for (int repeat = 0; repeat < repeats; ++repeat) {
    g_per_s[repeat] = static_cast<double>(kRounds * kPeakOps * threads) / run() / 1e9;
  }
}

}  // namespace scrimp
