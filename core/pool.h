// A pool of threads that all run the same function (SPMD) and meet at barriers.
//
// Waiting spins for a short while and then sleeps, so that a step of a few hundred barriers costs microseconds and an
// oversubscribed machine still makes progress.
#pragma once

#include <atomic>
#include <functional>
#include <thread>
#include <vector>

namespace scrimp {

class Pool {
 public:
  explicit Pool(int threads);
  ~Pool();
  Pool(const Pool&) = delete;
  Pool& operator=(const Pool&) = delete;

  int threads() const { return threads_; }

  // Run `body(thread)` on every thread, the caller being thread 0; returns when all are done.
  void run(const std::function<void(int)>& body);

  // Every thread of a running body waits here until all have arrived.
  void barrier();

 private:
  void work(int thread);

  const int threads_;
  std::atomic<uint32_t> generation_{0};  // of run(): a new value wakes the workers
  std::atomic<uint32_t> phase_{0};       // of barrier()
  std::atomic<int> arrived_{0};
  std::atomic<bool> stopping_{false};
  const std::function<void(int)>* body_ = nullptr;
  std::vector<std::thread> workers_;
};

}  // namespace scrimp
