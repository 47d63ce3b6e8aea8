// Work cut into pieces that threads claim, stage after stage, without barriers.
//
// A stage is over when all its pieces are finished, whoever did them. A thread that was late, because something else
// had its core, finds the pieces claimed and goes on: nobody ever waits for a thread that holds no piece. On a busy
// machine that is the difference between losing a time slice now and then and losing one at every barrier.
//
// A stage has a queue per thread. A thread empties its own first, in order, so that it walks memory as one stream, and
// then helps the others.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>

#include "spin.h"

namespace scrimp {

class Stages {
 public:
  Stages(size_t stages, int threads)
      : threads_(static_cast<size_t>(threads)),
        stages_(stages),
        claims_(new Counter[stages * threads_]),
        finished_(new Counter[stages]) {}

  // Before a run, while no thread works.
  void reset() {
    for (size_t i = 0; i < stages_ * threads_; ++i) claims_[i].value.store(0, std::memory_order_relaxed);
    for (size_t i = 0; i < stages_; ++i) finished_[i].value.store(0, std::memory_order_relaxed);
  }

  // The next piece of `queue` that nobody has, or -1 when all `pieces` are taken.
  int64_t claim(size_t stage, int queue, int64_t pieces) {
    auto& next = claims_[stage * threads_ + static_cast<size_t>(queue)].value;
    if (next.load(std::memory_order_relaxed) >= pieces) return -1;
    const int64_t piece = next.fetch_add(1, std::memory_order_relaxed);
    return piece < pieces ? piece : -1;
  }

  // `done` of the stage's `pieces` are finished.
  void finish(size_t stage, int64_t done, int64_t pieces) {
    auto& count = finished_[stage].value;
    if (count.fetch_add(done, std::memory_order_acq_rel) + done == pieces) count.notify_all();
  }

  // Returns when all `pieces` of the stage are finished.
  void wait(size_t stage, int64_t pieces) {
    const auto& count = finished_[stage].value;
    for (int64_t seen; (seen = count.load(std::memory_order_acquire)) < pieces;) wait_for_change(count, seen);
  }

 private:
  struct alignas(64) Counter {
    std::atomic<int64_t> value{0};
  };
  const size_t threads_, stages_;
  std::unique_ptr<Counter[]> claims_;
  std::unique_ptr<Counter[]> finished_;
};

}  // namespace scrimp
