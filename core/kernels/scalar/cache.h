// Rows of a key/value cache, the obvious way.
#pragma once

#include "kernels/kernels.h"
#include "kernels/scalar/half.h"

namespace scrimp::scalar {
namespace {

// Number d of one head and position; see CacheType in ../kernels.h.
inline float cached(const Attention& a, const uint8_t* plane, const uint16_t* scales, int64_t head, int64_t position,
                    int64_t d) {
  const int64_t page = a.pages[position / kPagePositions] * a.page_bytes;
  const int64_t row = position % kPagePositions;
  const uint8_t* bytes = plane + page + (head * kPagePositions + row) * a.row_bytes;
  if (a.cache == CacheType::kF16) return f16_to_float(reinterpret_cast<const uint16_t*>(bytes)[d]);
  if (a.cache == CacheType::kF32) return reinterpret_cast<const float*>(bytes)[d];
  const int64_t scale_row = head * a.row_scales + (d >> a.cache_block_log2);
  const float scale = f16_to_float(scales[page / 2 + scale_row * kPagePositions + row]);
  if (a.cache == CacheType::kInt8) return scale * static_cast<float>(reinterpret_cast<const int8_t*>(bytes)[d]);
  const uint8_t pair = bytes[d / 32 * 16 + d % 16];
  return scale * static_cast<float>((d % 32 < 16 ? pair & 15 : pair >> 4) - 8);
}

}  // namespace
}  // namespace scrimp::scalar
