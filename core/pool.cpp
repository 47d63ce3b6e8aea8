#include "pool.h"

#include "spin.h"

namespace scrimp {
Pool::Pool(int threads) : threads_(threads < 1 ? 1 : threads) {
  for (int thread = 1; thread < threads_; ++thread) workers_.emplace_back([this, thread] { work(thread); });
}

Pool::~Pool() {
  stopping_.store(true);
  generation_.fetch_add(1);
  generation_.notify_all();
  for (auto& worker : workers_) worker.join();
}

void Pool::run(const std::function<void(int)>& body) {
  body_ = &body;
  generation_.fetch_add(1, std::memory_order_release);
  generation_.notify_all();
  body(0);
  barrier();  // the body must outlive its last user
}

void Pool::work(int thread) {
  uint32_t seen = 0;
  for (;;) {
    while (generation_.load(std::memory_order_acquire) == seen) wait_for_change(generation_, seen);
    ++seen;
    if (stopping_.load()) return;
    (*body_)(thread);
    barrier();
  }
}

void Pool::barrier() {
  if (threads_ == 1) return;
  const uint32_t phase = phase_.load(std::memory_order_acquire);
  if (arrived_.fetch_add(1, std::memory_order_acq_rel) + 1 == threads_) {
    arrived_.store(0, std::memory_order_relaxed);
    phase_.fetch_add(1, std::memory_order_release);
    phase_.notify_all();
  } else {
    while (phase_.load(std::memory_order_acquire) == phase) wait_for_change(phase_, phase);
  }
}

}  // namespace scrimp
