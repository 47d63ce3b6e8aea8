// Random matrices of every element, packed, and what their kernels are to give.
#pragma once

#include "check.h"
#include "packing.h"

#include "kernels/scalar/half.h"

namespace scrimp {

struct Format {
  Element element;
  int32_t bits;
  bool mins;
  int64_t group;  // 0: a scale per row
  bool tensor = false;
  ScaleType scale_type = ScaleType::kF16;
};

// A byte for a power of two, 2^-20 .. 2^11, by the fraction of a number.
inline uint8_t power_of(float x) { return static_cast<uint8_t>(107 + (scalar::bits_of_float(x) >> 3) % 32); }

// What becomes of a number that is stored as `type`.
inline float stored(float x, ScaleType type) {
  if (type == ScaleType::kF32) return x;
  if (type == ScaleType::kE8m0) return scalar::e8m0_to_float(power_of(x));
  if (type == ScaleType::kF16) return scalar::f16_to_float(scalar::float_to_f16(x));
  return scalar::float_of_bits(scalar::bits_of_float(x) & 0xFFFF0000u);
}

inline void put(uint8_t* plane, ScaleType type, int64_t at, float x) {
  const uint32_t bits = scalar::bits_of_float(x);
  const uint16_t half = type == ScaleType::kF16 ? scalar::float_to_f16(x) : static_cast<uint16_t>(bits >> 16);
  if (type == ScaleType::kF32)
    std::memcpy(plane + 4 * at, &bits, 4);
  else if (type == ScaleType::kE8m0)
    plane[at] = static_cast<uint8_t>(bits >> 23);
  else
    std::memcpy(plane + 2 * at, &half, 2);
}

struct Weights {
  Format format;
  int64_t rows, cols, group, groups;
  std::vector<uint8_t> codes;             // [rows][cols]
  std::vector<float> floats;              // the same of floats, as stored
  std::vector<float> scales, mins;        // [rows][groups], as stored
  std::vector<Guarded<uint8_t>> planes;   // one or two
  std::vector<Guarded<uint8_t>> columns;  // of scales, then of mins
  Matrix matrix{};

  int32_t levels() const { return format.element == Element::kTernary ? 3 : 1 << format.bits; }
  bool is_float() const { return format.element <= Element::kBf16; }
  int32_t step_of(int64_t row, int64_t k) const {  // what is summed in int32
    const int32_t code = codes[static_cast<size_t>(row * cols + k)];
    if (format.element == Element::kTable) return matrix.levels[code] - matrix.zero;
    return format.mins ? code : matrix.step * code - matrix.zero;
  }
  size_t scale_at(int64_t row, int64_t k) const { return static_cast<size_t>(row * groups + k / group); }
  // As the contract says it is rounded.
  float value(int64_t row, int64_t k) const {
    const auto at = static_cast<size_t>(row * cols + k);
    float v = is_float()                          ? floats[at]
              : format.element == Element::kTable ? matrix.numbers[codes[at]]
                                                  : static_cast<float>(step_of(row, k));
    if (!scales.empty()) v = scales[scale_at(row, k)] * v;
    return format.mins ? v + mins[scale_at(row, k)] : v;
  }
};

enum class Fill { kRandom, kLargest, kWhole };  // kWhole: scales of 1 and whole mins

inline Weights random_weights(Random& random, const Format& format, int64_t rows, int64_t cols, Fill fill) {
  Weights w{format, rows, cols, format.group == 0 ? cols : format.group, 0, {}, {}, {}, {}, {}, {}, {}};
  w.groups = (cols + w.group - 1) / w.group;
  const int64_t tiles = (rows + kTileRows - 1) / kTileRows;
  const bool binary = format.element == Element::kBinary;
  const int32_t zero = format.element == Element::kInt     ? 1 << (format.bits - 1)
                       : format.element == Element::kTable ? kTableZero
                                                           : 1;
  w.matrix = {.rows = rows,
              .cols = cols,
              .element = format.element,
              .bits = format.bits,
              .plane = {},
              .vectors = {},
              .step = binary ? 2 : 1,
              .zero = zero,
              .scale_type = format.scale_type,
              .scales = nullptr,
              .mins = nullptr,
              .group = w.group,
              .groups = w.groups,
              .scale_tile_stride = w.groups * kTileRows};
  if (format.element == Element::kTable) {
    w.matrix.factor = fill == Fill::kWhole ? 1.0F : random.normal();
    for (int32_t i = 0; i < w.levels(); ++i) {
      w.matrix.levels[i] = static_cast<uint8_t>(fill == Fill::kLargest ? 255 * (i % 2) : random.below(256));
      w.matrix.numbers[i] = random.normal();
    }
  }
  const auto plane = [&](int64_t vectors) {
    w.matrix.vectors[w.planes.size()] = vectors;
    w.planes.emplace_back(tiles * vectors * kVectorBytes);
    w.matrix.plane[w.planes.size() - 1] = w.planes.back().data();
    return w.planes.back().data();
  };
  if (w.is_float()) {
    const int64_t per_vector = format.element == Element::kF32 ? 1 : 2;
    const auto as = format.element == Element::kF32   ? ScaleType::kF32
                    : format.element == Element::kF16 ? ScaleType::kF16
                                                      : ScaleType::kBf16;
    const int64_t vectors = (cols + per_vector - 1) / per_vector;
    uint8_t* to = plane(vectors);
    for (int64_t r = 0; r < rows; ++r)
      for (int64_t k = 0; k < cols; ++k) {
        w.floats.push_back(stored(random.normal(), as));
        const int64_t vector = r / kTileRows * vectors + k / per_vector;
        put(to + vector * kVectorBytes + 4 * (r % kTileRows), as, k % per_vector, w.floats.back());
      }
  } else {
    for (int64_t i = 0; i < rows * cols; ++i)
      w.codes.push_back(static_cast<uint8_t>(fill == Fill::kLargest ? w.levels() - 1 : random.below(w.levels())));
    const int low = format.element == Element::kTernary    ? 0
                    : format.bits == 3                     ? 2
                    : format.bits == 5 || format.bits == 6 ? 4
                                                           : format.bits;
    const int widths[2] = {low, low > 0 ? format.bits - low : 0};
    for (int i = 0; i < 2; ++i) {
      if (i == 1 && widths[1] == 0) break;
      const int64_t span = plane_span(widths[i]);
      pack_plane(w.codes.data(), rows, cols, i == 0 ? 0 : low, widths[i], plane((cols + span - 1) / span));
    }
  }
  if (format.scale_type == ScaleType::kNone) return w;
  if (format.tensor) w.matrix.scale_tile_stride = 0;
  const int64_t element_bytes = format.scale_type == ScaleType::kF32    ? 4
                                : format.scale_type == ScaleType::kE8m0 ? 1
                                                                        : 2;
  const auto column = [&](std::vector<float>& all, bool ones) {
    w.columns.emplace_back((format.tensor ? 1 : tiles) * w.groups * kTileRows * element_bytes);
    uint8_t* to = w.columns.back().data();
    const float same = fill == Fill::kWhole ? 1.0F : stored(random.normal(), format.scale_type);
    for (int64_t r = 0; r < rows; ++r)
      for (int64_t g = 0; g < w.groups; ++g) {
        const float whole = ones ? 1.0F : static_cast<float>(random.from(-3, 3));
        const float x = fill == Fill::kWhole ? whole : stored(random.normal(), format.scale_type);
        all.push_back(format.tensor ? same : x);
        const int64_t tile = format.tensor ? 0 : r / kTileRows;
        put(to, format.scale_type, (tile * w.groups + g) * kTileRows + r % kTileRows, all.back());
      }
    if (format.tensor)
      for (int64_t r = 0; r < kTileRows; ++r) put(to, format.scale_type, r, same);
    return to;
  };
  w.matrix.scales = column(w.scales, true);
  if (format.mins) w.matrix.mins = column(w.mins, false);
  return w;
}

}  // namespace scrimp
