// Codes to planes and back, fast: the same layout as src/scrimp/formats/packing.py, which is the truth.
#pragma once

#include <cstdint>

#include "kernels/kernels.h"

namespace scrimp {

// Inputs per vector of a plane of `width` bits; width 0 stands for packed trits.
constexpr int64_t plane_span(int width) { return width == 0 ? 20 : 32 / width; }

// Bits [shift, shift + width) of codes (rows, cols) -> plane (tiles, vectors, 64), every byte written.
void pack_plane(const uint8_t* codes, int64_t rows, int64_t cols, int shift, int width, uint8_t* plane);

// The inverse: or's the field into codes, which must begin as zeros. Rows [row_begin, row_end) only; codes points at
// row_begin.
void unpack_plane(const uint8_t* plane, int64_t cols, int shift, int width, int64_t row_begin, int64_t row_end,
                  uint8_t* codes);

// Row `row` of a matrix of any element, decoded to float32 into out (cols).
void decode_row(const Matrix& w, int64_t row, float* out);

// A stored scale as float32.
float load_scale(const void* scales, ScaleType type, int64_t index);

}  // namespace scrimp
