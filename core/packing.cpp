#include "packing.h"

#include <bit>
#include <cstring>

namespace scrimp {
namespace {

constexpr uint8_t kPowersOf3[5] = {1, 3, 9, 27, 81};

float half_to_float(uint16_t half) {
  const uint32_t sign = static_cast<uint32_t>(half & 0x8000) << 16;
  const uint32_t exponent = (half >> 10) & 31, fraction = half & 1023;
  if (exponent == 31) return std::bit_cast<float>(sign | 0x7F800000u | (fraction << 13));
  if (exponent != 0) return std::bit_cast<float>(sign | ((exponent + 112) << 23) | (fraction << 13));
  const float magnitude = static_cast<float>(fraction) * 0x1p-24f;  // subnormal or zero
  return sign ? -magnitude : magnitude;
}

float bfloat_to_float(uint16_t bits) { return std::bit_cast<float>(static_cast<uint32_t>(bits) << 16); }

uint16_t load_u16(const uint8_t* bytes) {
  uint16_t value;
  std::memcpy(&value, bytes, sizeof value);
  return value;
}

// Code of input `col` of row `row` in its tile.
uint8_t field(const uint8_t* tile, int64_t row, int64_t col, int width) {
  const int64_t span = plane_span(width), within = col % span;
  const uint8_t byte = tile[col / span * kVectorBytes + 4 * row + within % 4];
  if (width == 0) return static_cast<uint8_t>(byte / kPowersOf3[within / 4] % 3);
  return static_cast<uint8_t>((byte >> (width * (within / 4))) & ((1 << width) - 1));
}

void decode_float_row(const Matrix& w, int64_t row, float* out) {
  const uint8_t* tile = w.plane[0] + row / kTileRows * w.vectors[0] * kVectorBytes + 4 * (row % kTileRows);
  for (int64_t k = 0; k < w.cols; ++k) {
    if (w.element == Element::kF32) {
      std::memcpy(out + k, tile + k * kVectorBytes, sizeof(float));
    } else {
      const uint16_t bits = load_u16(tile + k / 2 * kVectorBytes + 2 * (k % 2));
      out[k] = w.element == Element::kF16 ? half_to_float(bits) : bfloat_to_float(bits);
    }
  }
}

}  // namespace

float load_scale(const void* scales, ScaleType type, int64_t index) {
  if (type == ScaleType::kF32) return static_cast<const float*>(scales)[index];
  if (type == ScaleType::kE8m0) {
    const uint32_t power = static_cast<const uint8_t*>(scales)[index];
    return std::bit_cast<float>(power == 0 ? 0x00400000u : power == 255 ? 0x7FC00000u : power << 23);
  }
  const uint16_t bits = static_cast<const uint16_t*>(scales)[index];
  return type == ScaleType::kF16 ? half_to_float(bits) : bfloat_to_float(bits);
}

void pack_plane(const uint8_t* codes, int64_t rows, int64_t cols, int shift, int width, uint8_t* plane) {
  const int64_t span = plane_span(width), vectors = (cols + span - 1) / span;
  const int64_t tiles = (rows + kTileRows - 1) / kTileRows, fields = span / 4;
  const auto mask = static_cast<uint8_t>(width == 0 ? 3 : (1 << width) - 1);
  const auto tile_bytes = static_cast<size_t>(vectors * kVectorBytes);
  if (rows % kTileRows != 0) std::memset(plane + (tiles - 1) * vectors * kVectorBytes, 0, tile_bytes);
  const uint32_t mask4 = mask * 0x01010101u;
  for (int64_t row = 0; row < rows; ++row) {
    uint8_t* tile = plane + row / kTileRows * vectors * kVectorBytes + 4 * (row % kTileRows);
    const uint8_t* source = codes + row * cols;
    // Four inputs at a time, where a vector is full: no field of a byte reaches into the next.
    const int64_t full = cols / span;
    for (int64_t vector = 0; vector < full; ++vector) {
      uint32_t bytes = 0;
      for (int64_t i = 0; i < fields; ++i) {
        uint32_t four;
        std::memcpy(&four, source + vector * span + 4 * i, 4);
        four = (four >> shift) & mask4;
        bytes += width == 0 ? four * kPowersOf3[i] : four << (width * i);
      }
      std::memcpy(tile + vector * kVectorBytes, &bytes, 4);
    }
    for (int64_t vector = full; vector < vectors; ++vector) {
      uint8_t bytes[4] = {0, 0, 0, 0};
      for (int64_t i = 0; i < fields; ++i) {
        for (int64_t j = 0; j < 4; ++j) {
          const int64_t col = vector * span + 4 * i + j;
          if (col >= cols) continue;
          const auto code = static_cast<uint8_t>((source[col] >> shift) & mask);
          const int placed = width == 0 ? code * kPowersOf3[i] : code << (width * i);
          bytes[j] = static_cast<uint8_t>(bytes[j] + placed);
        }
      }
      std::memcpy(tile + vector * kVectorBytes, bytes, 4);
    }
  }
}

void unpack_plane(const uint8_t* plane, int64_t cols, int shift, int width, int64_t row_begin, int64_t row_end,
                  uint8_t* codes) {
  const int64_t span = plane_span(width), vectors = (cols + span - 1) / span;
  for (int64_t row = row_begin; row < row_end; ++row) {
    const uint8_t* tile = plane + row / kTileRows * vectors * kVectorBytes;
    uint8_t* out = codes + (row - row_begin) * cols;
    for (int64_t col = 0; col < cols; ++col) {
      out[col] = static_cast<uint8_t>(out[col] | (field(tile, row % kTileRows, col, width) << shift));
    }
  }
}

void decode_row(const Matrix& w, int64_t row, float* out) {
  if (w.element <= Element::kBf16) return decode_float_row(w, row, out);
  const int low = w.element == Element::kTernary ? 0 : w.bits == 3 ? 2 : w.bits == 5 || w.bits == 6 ? 4 : w.bits;
  const int64_t tile = row / kTileRows, lane = row % kTileRows;
  const uint8_t* planes[2] = {w.plane[0] + tile * w.vectors[0] * kVectorBytes,
                              w.plane[1] ? w.plane[1] + tile * w.vectors[1] * kVectorBytes : nullptr};
  for (int64_t k = 0; k < w.cols; ++k) {
    int code = field(planes[0], lane, k, low);
    if (planes[1]) code |= field(planes[1], lane, k, w.bits - low) << low;
    const int64_t at = tile * w.scale_tile_stride + k / w.group * kTileRows + lane;
    const float scale = load_scale(w.scales, w.scale_type, at);
    if (w.mins) {
      const float product = scale * static_cast<float>(code);
      out[k] = product + load_scale(w.mins, w.scale_type, at);
    } else if (w.element == Element::kTable) {
      out[k] = scale * w.numbers[code];
    } else {
      out[k] = scale * static_cast<float>(w.step * code - w.zero);
    }
  }
}

}  // namespace scrimp
