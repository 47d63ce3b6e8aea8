// Memory by the page.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <memory>
#include <new>

#if defined(__linux__)
#include <sys/mman.h>
#endif

namespace scrimp {

struct Free {
  void operator()(void* memory) const { std::free(memory); }
};
template <typename T>
using Memory = std::unique_ptr<T[], Free>;

constexpr size_t kHugePage = size_t{1} << 21;

// `count` numbers on a page of their own, not touched. Large blocks come as untouched pages: a cache for a long context
// costs memory only as far as it is used. What is used at once, and as a whole, is better off in huge pages.
template <typename T>
Memory<T> allocate(int64_t count, bool huge = false) {
  const size_t bytes = (static_cast<size_t>(std::max<int64_t>(count, 1)) * sizeof(T) + 63) / 64 * 64;
  huge = huge && bytes >= kHugePage;
  void* memory = nullptr;
  if (posix_memalign(&memory, huge ? kHugePage : 4096, bytes) != 0) throw std::bad_alloc();
#if defined(__linux__)
  if (huge) madvise(memory, bytes, MADV_HUGEPAGE);  // a wish: where it is not granted, pages are small
#endif
  return Memory<T>(static_cast<T*>(memory));
}

// Memory for `bytes` of a weight, not touched, in huge pages throughout, from which it is read a third faster. Weights
// that are made one after another lie together in a block of them, which is released with the last. Any thread may ask.
std::shared_ptr<uint8_t> weight_memory(size_t bytes);

}  // namespace scrimp
