#include "pages.h"

#include <mutex>

namespace scrimp {

void collapse_into_huge_pages(std::vector<std::pair<uintptr_t, uintptr_t>> stretches) {
#if defined(__linux__)
  constexpr int kCollapse = 25;  // MADV_COLLAPSE of Linux 6.1; older systems refuse it, as they do for mapped files
  std::sort(stretches.begin(), stretches.end());
  uintptr_t done = 0;
  for (const auto& [begin, end] : stretches) {
    for (uintptr_t page = std::max(done, begin / kHugePage * kHugePage); page < end; page += kHugePage) {
      madvise(reinterpret_cast<void*>(page), kHugePage, kCollapse);
      done = page + kHugePage;
    }
  }
#else
  (void)stretches;
#endif
}

std::shared_ptr<uint8_t> weight_memory(size_t bytes) {
  constexpr size_t kBlock = size_t{8} << 20;
  bytes = std::max<size_t>(bytes, 1);
  const auto fresh = [](size_t size) {
    return std::shared_ptr<uint8_t>(allocate<uint8_t>(static_cast<int64_t>(size), true).release(), Free{});
  };
  if (bytes > kBlock / 2) return fresh(bytes);
  static std::mutex turn;
  static std::weak_ptr<uint8_t> block;  // weak: what nobody needs any more is not kept for the next
  static size_t used = 0;
  const std::lock_guard lock(turn);
  std::shared_ptr<uint8_t> whole = block.lock();
  if (!whole || used + bytes > kBlock) {
    block = whole = fresh(kBlock);
    used = 0;
  }
  const size_t at = used;
  used = (used + bytes + 63) / 64 * 64;
  return {whole, whole.get() + at};
}

}  // namespace scrimp
