#include "pages.h"

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

}  // namespace scrimp
