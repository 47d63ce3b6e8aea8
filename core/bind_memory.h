// Caches, as Python asks for them: by the page.
#pragma once

#include <utility>
#include <vector>

#include "bind_checks.h"
#include "engine.h"
#include "pages.h"

namespace scrimp {

inline std::vector<CacheShape> checked_caches(const std::vector<std::pair<int64_t, int64_t>>& caches, int type,
                                              int block_log2) {
  require(type >= 0 && type <= 3 && block_log2 >= 5 && block_log2 <= 30, "no such cache");
  std::vector<CacheShape> shapes;
  for (const auto& [heads, dim] : caches) {
    require(heads > 0 && dim > 0 && heads <= 1 << 16 && dim <= 1 << 16, "a cache has 1 … 2^16 heads and numbers");
    shapes.push_back({heads, dim});
  }
  return shapes;
}

inline int64_t page_bytes(const std::vector<std::pair<int64_t, int64_t>>& caches, int type, int block_log2) {
  return page_layout(checked_caches(caches, type, block_log2), static_cast<CacheType>(type), block_log2).bytes;
}

// Numbered with int32, and so many that their bytes can be counted.
inline void check_pages(int64_t bytes, int64_t pages) {
  require(pages >= 0 && pages < (int64_t{1} << 31) && bytes <= (int64_t{1} << 62) / (pages + 1),
          "so many pages cannot be");
}

}  // namespace scrimp
