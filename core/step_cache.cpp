// Keys and values on their way into the pages of their sequences.
#include <algorithm>
#include <cstring>
#include <tuple>

#include "engine.h"

namespace scrimp {
namespace {

// A row of keys becomes column `position` of a page's [number][kPagePositions].
template <typename Number>
void put_column(const uint8_t* row, int64_t count, int64_t position, uint8_t* page) {
  for (int64_t i = 0; i < count; ++i)
    std::memcpy(page + (i * kPagePositions + position) * static_cast<int64_t>(sizeof(Number)),
                row + i * static_cast<int64_t>(sizeof(Number)), sizeof(Number));
}

}  // namespace

// Put the keys and values of a block of tokens into their pages; `turned` has room for one row.
void Engine::prepare_attention(const Op& op, const Step& step, int64_t rows, int64_t block, uint8_t* turned) {
  const auto cache = static_cast<size_t>(op.ints[0]);
  const auto [kv_heads, head_dim] = caches_[cache];
  const PageLayout::Part& part = layout_.parts[cache];
  const std::tuple<int, int64_t, int64_t> streams[] = {{op.inputs[1], part.keys, part.key_scales},
                                                       {op.inputs[2], part.values, part.value_scales}};
  const int64_t end = std::min((block + 1) * kTokenBlock, rows);
  for (int64_t t = block * kTokenBlock; t < end; ++t) {
    const Row& at = rows_[static_cast<size_t>(t)];
    const int32_t* pages = step.spans[static_cast<size_t>(at.span)].pages;
    uint8_t* page = pages_.get() + pages[at.position / kPagePositions] * layout_.bytes;
    const int64_t position = at.position % kPagePositions;
    for (const auto& [buffer, codes, scales] : streams) {
      const float* from = row(buffer, step, t);
      for (int64_t h = 0; h < kv_heads; ++h, from += head_dim) {
        const bool keys = codes == part.keys;
        uint8_t* head = page + codes + h * kPagePositions * part.row_bytes;
        uint8_t* to = keys ? turned : head + position * part.row_bytes;
        if (settings_.cache == CacheType::kF32) {
          std::memcpy(to, from, static_cast<size_t>(part.row_bytes));
        } else if (settings_.cache == CacheType::kF16) {
          kernels_.to_f16(from, head_dim, reinterpret_cast<uint16_t*>(to));
        } else {
          auto* scale = reinterpret_cast<uint16_t*>(page + scales) + h * part.row_scales * kPagePositions + position;
          kernels_.to_codes(from, head_dim, settings_.cache, int64_t{1} << settings_.cache_block_log2, to, scale,
                            kPagePositions);
        }
        if (!keys) continue;
        if (settings_.cache == CacheType::kF32) {
          put_column<uint32_t>(turned, head_dim, position, head);
        } else if (settings_.cache == CacheType::kF16) {
          put_column<uint16_t>(turned, head_dim, position, head);
        } else {
          put_column<uint8_t>(turned, part.row_bytes, position, head);
        }
      }
    }
  }
}

}  // namespace scrimp
