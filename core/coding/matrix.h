// A whole matrix of codes under rANS: segments shared out among threads, decoded straight into tile planes.
#pragma once

#include <cstdint>
#include <vector>

#include "coding/rans.h"

namespace scrimp {

// Bytes of segment `i` of a stream lie in [ends[i - 1], ends[i]); a segment holds `segment_rows` rows, whole tiles.
struct Segments {
  const uint8_t* stream;
  std::vector<int64_t> ends;
  int64_t segment_rows;
};

// Codes (rows, cols) -> the segments one after the other; `ends` receives where each ends.
std::vector<uint8_t> encode_matrix(const uint8_t* codes, int64_t rows, int64_t cols, int64_t segment_rows,
                                   const RansContexts& contexts, const RansTables& tables, int threads,
                                   std::vector<int64_t>& ends);

// Where decoded codes go: bits [shift, shift + width) to a plane (tiles, vectors, 64) as packing.h describes it.
struct PlaneOut {
  int shift, width;  // width 0: trits
  uint8_t* plane;
};

// -> planes; without planes, the codes as bytes (tiles, cols, 16) into `raw`. All bytes are written.
void decode_matrix(const Segments& segments, int64_t rows, int64_t cols, const RansContexts& contexts,
                   const RansTables& tables, int threads, const std::vector<PlaneOut>& planes, uint8_t* raw);

// How often each code occurs in each class: counts (classes, 256) += 1 at [row_class + col_class][code].
void count_codes(const uint8_t* codes, int64_t rows, int64_t cols, const uint8_t* row_class, const uint8_t* col_class,
                 uint64_t* counts);

// Means of squares[code]: by row, then by column with every row divided by its own mean (rows of mean 0 left out):
// the rank-1 model  square(row, col) = row_means[row] * col_means[col].
void spreads(const uint8_t* codes, int64_t rows, int64_t cols, const float* squares, double* row_means,
             double* col_means);

}  // namespace scrimp
