// Interleaved range coding by asymmetric numeral systems (rANS; Duda 2013, arXiv:1311.2540, section 3) of a matrix of
// codes, each under one of a few static tables.
//
//   one state x per row of a tile (16 lanes), all of one segment writing into one stream of 16-bit words
//   encode:  x -> (x / f << kRangeBits) + x % f + start        after  x >= f << (32 - kRangeBits): emit 16 bits
//   decode:  x -> f * (x >> kRangeBits) + (x mod 2^kRangeBits) - start,  then  x < 2^16: take 16 bits
//
// Segments of whole tiles are independent: threads decode them at once, and damage in one stays there. A segment is
// its final states (4 bytes each, one per lane in use) and its words, in the order in which they are decoded.
#pragma once

#include <cstdint>
#include <stdexcept>
#include <vector>

#include "kernels/kernels.h"

namespace scrimp {

constexpr int kRangeBits = 14;  // frequencies of a table sum to 2^14
constexpr uint32_t kRange = uint32_t{1} << kRangeBits;
constexpr uint32_t kRansLow = uint32_t{1} << 16;  // states are in [2^16, 2^32)
constexpr int64_t kSymbols = 256;                 // codes are bytes

// A stream that no encoder of ours writes, or codes that its tables cannot say.
struct Malformed : std::runtime_error {
  using std::runtime_error::runtime_error;
};

// Static tables: slot -> symbol, symbol -> its part of the range.
struct RansTables {
  std::vector<uint8_t> symbol;   // (tables, 2^14)
  std::vector<uint32_t> ranges;  // (tables, 256): frequency, and start << 16

  // Frequencies (tables, levels); each row must sum to 2^14. Malformed otherwise.
  RansTables(const uint16_t* frequencies, int64_t tables, int64_t levels);
};

// A table as it is stored, a byte per level, -> frequencies that sum to 2^14: 0 where a level never occurs, else
//   f = 1 + floor(w (2^14 - n) / sum w)   of the n levels that occur, what is left over to the first of the heaviest
// with the weight w = 0 for byte 1 and 2^((byte - 2) / 8) from 2 to kHighestByte, in integers: the same everywhere.
// Malformed for a byte above that, and for a table in which nothing occurs.
constexpr int kHighestByte = 2 + 8 * kRangeBits;
void stored_frequencies(const uint8_t* stored, int64_t levels, uint16_t* frequencies);

// Which table codes the weight at (row, col): tables[row_class[row] + col_class[col]].
struct RansContexts {
  const uint8_t* row_class;     // (rows)
  const uint8_t* col_class;     // (cols)
  std::vector<uint8_t> tables;  // by the sum of both, proven to cover every one

  bool single() const { return tables.size() == 1; }
};

// Codes (rows, cols) of rows [begin, end), `begin` on a tile -> one segment. Malformed when a code has no frequency.
std::vector<uint8_t> rans_encode(const uint8_t* codes, int64_t cols, int64_t begin, int64_t end,
                                 const RansContexts& contexts, const RansTables& tables);

// The inverse, for one tile after the other. Never reads outside the segment; Malformed when it ends early or late, or
// when a lane does not end in the state that every encoder starts from.
class RansDecoder {
 public:
  RansDecoder(const uint8_t* segment, int64_t bytes, int64_t lanes, int64_t cols, const RansContexts& contexts,
              const RansTables& tables);

  // The next tile, rows `row` ..., of `lanes` rows: out[64 * (k / 4) + 4 * r + k % 4] = code (r, k) where `by_vector`,
  // out[16 * k + r] otherwise.
  void tile(int64_t row, int64_t lanes, bool by_vector, uint8_t* out);

  void finish() const;

 private:
  template <bool Single, bool ByVector>
  void run(int64_t row, int64_t lanes, uint8_t* out);

  const int64_t cols_;
  const RansContexts& contexts_;
  const RansTables& tables_;
  const uint8_t* at_;
  const uint8_t* const end_;
  int64_t used_;
  uint32_t states_[kTileRows];
};

}  // namespace scrimp
