// Rows of a key/value cache, the obvious way.
#pragma once

#include "kernels/kernels.h"
#include "kernels/scalar/half.h"

namespace scrimp::scalar {
namespace {

// Number d of one head and position, of the keys or the values; see CacheType in ../kernels.h.
inline float cached(const Attention& a, bool keys, int64_t head, int64_t position, int64_t d) {
  const int64_t page = a.pages[position / kPagePositions] * a.page_bytes;
  const int64_t row = position % kPagePositions;
  const uint8_t* bytes = (keys ? a.keys : a.values) + page + head * kPagePositions * a.row_bytes;
  const uint16_t* scales = keys ? a.key_scales : a.value_scales;
  const auto index = [&](int64_t unit, int64_t row_units) {
    return keys ? unit * kPagePositions + row : row * row_units + unit;
  };
  if (a.cache == CacheType::kF16) return f16_to_float(reinterpret_cast<const uint16_t*>(bytes)[index(d, a.head_dim)]);
  if (a.cache == CacheType::kF32) return reinterpret_cast<const float*>(bytes)[index(d, a.head_dim)];
  const int64_t scale_row = head * a.row_scales + (d >> a.cache_block_log2);
  const float scale = f16_to_float(scales[page / 2 + scale_row * kPagePositions + row]);
  if (a.cache == CacheType::kInt8) return scale * static_cast<float>(static_cast<int8_t>(bytes[index(d, a.row_bytes)]));
  const uint8_t pair = bytes[index(d / 32 * 16 + d % 16, a.row_bytes)];
  return scale * static_cast<float>((d % 32 < 16 ? pair & 15 : pair >> 4) - 8);
}

}  // namespace
}  // namespace scrimp::scalar
