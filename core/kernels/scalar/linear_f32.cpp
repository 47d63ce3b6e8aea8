#include "kernels/scalar/half.h"
#include "kernels/scalar/isa.h"

namespace scrimp::scalar {
namespace {

constexpr int64_t kDecodeCols = 2560;
static_assert(kTileRows * kDecodeCols * 4 <= static_cast<int64_t>(kScratchBytes));

// Byte `k mod 4` of row r of the vector that holds input k, where a vector covers `span` inputs.
uint32_t stored_byte(const Matrix& w, int plane, int64_t tile, int64_t r, int64_t k, int64_t span) {
  const int64_t vector = tile * w.vectors[plane] + k / span;
  return w.plane[plane][vector * kVectorBytes + 4 * r + k % 4];
}

// The code of input k in a plane of `width` bits.
uint32_t field(const Matrix& w, int plane, int width, int64_t tile, int64_t r, int64_t k) {
  const int64_t span = 32 / width;
  const int64_t i = k % span / 4;
  return (stored_byte(w, plane, tile, r, k, span) >> (width * i)) & ((1u << width) - 1u);
}

uint32_t trit(const Matrix& w, int64_t tile, int64_t r, int64_t k) {
  uint32_t byte = stored_byte(w, 0, tile, r, k, 20);
  for (int64_t i = k % 20 / 4; i > 0; --i) byte /= 3u;
  return byte % 3u;
}

uint32_t code(const Matrix& w, int64_t tile, int64_t r, int64_t k) {
  if (w.element == Element::kTernary) return trit(w, tile, r, k);
  switch (w.bits) {
    case 3:
      return field(w, 0, 2, tile, r, k) | field(w, 1, 1, tile, r, k) << 2;
    case 5:
      return field(w, 0, 4, tile, r, k) | field(w, 1, 1, tile, r, k) << 4;
    case 6:
      return field(w, 0, 4, tile, r, k) | field(w, 1, 2, tile, r, k) << 4;
    default:
      return field(w, 0, w.bits, tile, r, k);
  }
}

float stored_float(const Matrix& w, int64_t tile, int64_t r, int64_t k) {
  const int64_t span = w.element == Element::kF32 ? 1 : 2;
  const uint8_t* at = w.plane[0] + (tile * w.vectors[0] + k / span) * kVectorBytes + 4 * r;
  if (w.element == Element::kF32) {
    float value;
    memcpy(&value, at, sizeof value);
    return value;
  }
  uint16_t half;
  memcpy(&half, at + 2 * (k % 2), sizeof half);
  return w.element == Element::kF16 ? f16_to_float(half) : bf16_to_float(half);
}

float stored_scale(const Matrix& w, const void* plane, int64_t tile, int64_t r, int64_t k) {
  const int64_t at = tile * w.scale_tile_stride + k / w.group * kTileRows + r;
  if (w.scale_type == ScaleType::kF32) return static_cast<const float*>(plane)[at];
  if (w.scale_type == ScaleType::kE8m0) return e8m0_to_float(static_cast<const uint8_t*>(plane)[at]);
  const uint16_t half = static_cast<const uint16_t*>(plane)[at];
  return w.scale_type == ScaleType::kBf16 ? bf16_to_float(half) : f16_to_float(half);
}

float value(const Matrix& w, int64_t tile, int64_t r, int64_t k) {
  const bool stored_as_float = w.element == Element::kF32 || w.element == Element::kF16 || w.element == Element::kBf16;
  float v;
  if (stored_as_float) {
    v = stored_float(w, tile, r, k);
  } else if (w.element == Element::kTable) {
    v = w.numbers[code(w, tile, r, k)];
  } else {
    const int32_t u = static_cast<int32_t>(code(w, tile, r, k));
    v = static_cast<float>(w.mins != nullptr ? u : w.step * u - w.zero);
  }
  if (w.scales != nullptr) v = stored_scale(w, w.scales, tile, r, k) * v;
  if (w.mins != nullptr) v = v + stored_scale(w, w.mins, tile, r, k);
  return v;
}

}  // namespace

// 16 rows x kDecodeCols values are decoded into scratch, then summed in the order of k, chunk after chunk.
// Error: |y - exact| <= gamma(2 kDecodeCols + ceil(K / kDecodeCols)) * sum_k |w x|, K in place of kDecodeCols when
// smaller.
void linear_f32(const Matrix& w, const float* x, int64_t x_stride, int64_t tokens, int64_t tile_begin, int64_t tile_end,
                float* y, int64_t y_stride, uint8_t* scratch) {
  float* values = reinterpret_cast<float*>(scratch);
  for (int64_t tile = tile_begin; tile < tile_end; ++tile) {
    const int64_t rows = w.rows - tile * kTileRows < kTileRows ? w.rows - tile * kTileRows : kTileRows;
    for (int64_t begin = 0; begin < w.cols; begin += kDecodeCols) {
      const int64_t cols = w.cols - begin < kDecodeCols ? w.cols - begin : kDecodeCols;
      for (int64_t r = 0; r < rows; ++r)
        for (int64_t k = 0; k < cols; ++k) values[r * cols + k] = value(w, tile, r, begin + k);
      for (int64_t t = 0; t < tokens; ++t) {
        for (int64_t r = 0; r < rows; ++r) {
          float sum = 0.0F;
          for (int64_t k = 0; k < cols; ++k) sum += values[r * cols + k] * x[t * x_stride + begin + k];
          float& to = y[t * y_stride + tile * kTileRows + r];
          to = begin == 0 ? sum : to + sum;
        }
      }
    }
  }
}

}  // namespace scrimp::scalar
