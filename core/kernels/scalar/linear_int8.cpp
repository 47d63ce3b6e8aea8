// Integer matrix products, the obvious way: one row, one token, one code at a time, straight from the planes.
#include <bit>
#include <cmath>
#include <cstring>
#include <limits>

#include "kernels/scalar/isa.h"

namespace scrimp::scalar {
namespace {

// `bits` bits of the code of input k of row `row` (0..15) in one tile of a p-bit plane.
int32_t plane_code(const uint8_t* tile, int32_t bits, int64_t row, int64_t k) {
  const int64_t span = 32 / bits;  // inputs of one vector
  const int64_t i = k % span / 4;
  const uint8_t byte = tile[k / span * kVectorBytes + 4 * row + k % 4];
  return (byte >> (bits * i)) & ((1 << bits) - 1);
}

int32_t trit_code(const uint8_t* tile, int64_t row, int64_t k) {
  static constexpr int32_t kPower[5] = {1, 3, 9, 27, 81};
  const uint8_t byte = tile[k / 20 * kVectorBytes + 4 * row + k % 4];
  return byte / kPower[k % 20 / 4] % 3;
}

// The code of input k, of a table its level.
int32_t code(const Matrix& w, int64_t tile, int64_t row, int64_t k) {
  const uint8_t* low = w.plane[0] + tile * w.vectors[0] * kVectorBytes;
  if (w.element == Element::kTernary) return trit_code(low, row, k);
  const int32_t low_bits = w.bits == 3 ? 2 : w.bits == 5 || w.bits == 6 ? 4 : w.bits;
  int32_t value = plane_code(low, low_bits, row, k);
  if (low_bits != w.bits) {
    const uint8_t* high = w.plane[1] + tile * w.vectors[1] * kVectorBytes;
    value |= plane_code(high, w.bits - low_bits, row, k) << low_bits;
  }
  return w.element == Element::kTable ? w.levels[value] : value;
}

float half_to_float(uint16_t h) {
  const uint32_t sign = static_cast<uint32_t>(h & 0x8000) << 16;
  const uint32_t exponent = (h >> 10) & 31;
  const uint32_t fraction = h & 1023;
  if (exponent == 0) {  // zero and denormals: fraction * 2^-24
    const float size = static_cast<float>(fraction) * 0x1p-24f;
    return sign ? -size : size;
  }
  const uint32_t high = exponent == 31 ? 255 : exponent + 112;
  return std::bit_cast<float>(sign | high << 23 | fraction << 13);
}

float scale_at(const void* plane, ScaleType type, int64_t index) {
  if (type == ScaleType::kF32) return static_cast<const float*>(plane)[index];
  if (type == ScaleType::kE8m0) {
    const int byte = static_cast<const uint8_t*>(plane)[index];
    return byte == 255 ? std::numeric_limits<float>::quiet_NaN() : std::ldexp(1.0f, byte - 127);
  }
  const uint16_t stored = static_cast<const uint16_t*>(plane)[index];
  if (type == ScaleType::kF16) return half_to_float(stored);
  return std::bit_cast<float>(static_cast<uint32_t>(stored) << 16);
}

// Row `row` of `tile` times the token at `quads` (inputs 4 apart by `width` tokens), with its scales.
float product(const Matrix& w, const Activations& x, int64_t tile, int64_t row, int64_t width, const int8_t* quads,
              const float* scales) {
  const bool symmetric = w.mins == nullptr;
  float y = 0.0f;
  for (int64_t g = 0; g < w.groups; ++g) {
    const int64_t end = w.cols - g * w.group < w.group ? w.cols : (g + 1) * w.group;
    float dot = 0.0f;
    float offset = 0.0f;
    for (int64_t k = g * w.group; k < end;) {
      const int64_t block = k / x.block;
      const int64_t stop = x.block < end && (block + 1) * x.block < end ? (block + 1) * x.block : end;
      int32_t inner = 0;
      int32_t sum = 0;
      for (; k < stop; ++k) {
        const int32_t u = code(w, tile, row, k);
        const int32_t q = quads[k / 4 * width * 4 + k % 4];
        inner += (symmetric ? w.step * u - w.zero : u) * q;
        sum += q;
      }
      dot += scales[block * width] * static_cast<float>(inner);
      offset += scales[block * width] * static_cast<float>(sum);
    }
    const int64_t at = tile * w.scale_tile_stride + g * kTileRows + row;
    y += scale_at(w.scales, w.scale_type, at) * dot;
    if (!symmetric) y += scale_at(w.mins, w.scale_type, at) * offset;
  }
  return w.factor * y;
}

}  // namespace

// y[t, n] = sum_g s[n,g] * sum_{a in g} sx[t,a] * sum_{k in a} (step*u[n,k] - zero) * x[t,k]     (see ../kernels.h)
//
// Exactness: inner sums are exact in int32; one rounding per scale and per addition.
// Cost: some twenty instructions per weight and token. This is the truth the other folders are compared with.
void linear_int8(const Matrix& w, const Activations& x, int64_t tile_begin, int64_t tile_end, float* y,
                 int64_t y_stride, uint8_t* /*scratch*/) {
  for (int64_t tile = tile_begin; tile < tile_end; ++tile) {
    for (int64_t row = 0; row < kTileRows && tile * kTileRows + row < w.rows; ++row) {
      for (int64_t t = 0; t < x.tokens; ++t) {
        const int64_t first = t / kTokenBlock * kTokenBlock;
        const int64_t width = x.tokens - first < kTokenBlock ? x.tokens - first : kTokenBlock;
        const int8_t* quads = x.quads + first * x.cols_padded + (t - first) * 4;
        const float* scales = x.scales + first * x.blocks + (t - first);
        y[t * y_stride + tile * kTileRows + row] = product(w, x, tile, row, width, quads, scales);
      }
    }
  }
}

}  // namespace scrimp::scalar
