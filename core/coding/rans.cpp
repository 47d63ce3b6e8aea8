#include "coding/rans.h"

#include <algorithm>
#include <cstring>

namespace scrimp {
namespace {

uint32_t load_u16(const uint8_t* bytes) { return static_cast<uint32_t>(bytes[0] | bytes[1] << 8); }

struct Lanes {
  uint32_t x[kTileRows];
};

}  // namespace

RansTables::RansTables(const uint16_t* frequencies, int64_t tables, int64_t levels)
    : symbol(static_cast<size_t>(tables) * kRange), ranges(static_cast<size_t>(tables * kSymbols), 0) {
  for (int64_t table = 0; table < tables; ++table) {
    uint32_t start = 0;
    for (int64_t level = 0; level < levels; ++level) {
      const uint32_t frequency = frequencies[table * levels + level];
      if (frequency > kRange - start) throw Malformed("frequencies exceed the range");
      ranges[static_cast<size_t>(table * kSymbols + level)] = frequency | (start << 16);
      const auto first = symbol.begin() + table * kRange + start;
      std::fill(first, first + frequency, static_cast<uint8_t>(level));
      start += frequency;
    }
    if (start != kRange) throw Malformed("frequencies do not fill the range");
  }
}

void stored_frequencies(const uint8_t* stored, int64_t levels, uint16_t* frequencies) {
  constexpr uint64_t kEighths[8] = {65536, 71468, 77936, 84990, 92682, 101070, 110218, 120194};  // 2^16 2^(i/8)
  uint64_t weights[kSymbols], sum = 0, present = 0;
  for (int64_t level = 0; level < levels; ++level) {
    const int byte = stored[level];
    if (byte > kHighestByte) throw Malformed("a table holds a byte that is no frequency");
    weights[level] = byte < 2 ? 0 : kEighths[(byte - 2) % 8] << (byte - 2) / 8;
    sum += weights[level];
    present += byte > 0;
  }
  if (present == 0) throw Malformed("a table holds nothing");
  if (sum == 0) {  // all are the rarest: the range is shared evenly
    for (int64_t level = 0; level < levels; ++level) weights[level] = stored[level];
    sum = present;
  }
  const uint64_t room = kRange - present;
  uint64_t left = kRange;
  for (int64_t level = 0; level < levels; ++level) {
    const uint64_t frequency = stored[level] ? 1 + weights[level] * room / sum : 0;
    frequencies[level] = static_cast<uint16_t>(frequency);
    left -= frequency;
  }
  const auto heaviest = std::max_element(weights, weights + levels) - weights;
  frequencies[heaviest] = static_cast<uint16_t>(frequencies[heaviest] + left);
}

std::vector<uint8_t> rans_encode(const uint8_t* codes, int64_t cols, int64_t begin, int64_t end,
                                 const RansContexts& contexts, const RansTables& tables) {
  std::vector<uint16_t> words;  // last first
  words.reserve(static_cast<size_t>((end - begin) * cols / 3));
  Lanes lanes;
  std::fill(lanes.x, lanes.x + kTileRows, kRansLow);
  for (int64_t tile = begin + (end - begin - 1) / kTileRows * kTileRows; tile >= begin; tile -= kTileRows) {
    const int64_t rows = std::min(kTileRows, end - tile);
    for (int64_t col = cols - 1; col >= 0; --col) {
      for (int64_t row = rows - 1; row >= 0; --row) {
        const uint32_t table =
            contexts.single()
                ? contexts.tables[0]
                : contexts.tables[static_cast<size_t>(contexts.row_class[tile + row] + contexts.col_class[col])];
        const uint32_t range = tables.ranges[table * kSymbols + codes[(tile + row) * cols + col]];
        const uint32_t frequency = range & 0xFFFF;
        if (frequency == 0) throw Malformed("a code has no frequency");
        uint32_t x = lanes.x[row];
        if (x >= static_cast<uint64_t>(frequency) << (32 - kRangeBits)) {
          words.push_back(static_cast<uint16_t>(x));
          x >>= 16;
        }
        lanes.x[row] = (x / frequency << kRangeBits) + x % frequency + (range >> 16);
      }
    }
  }
  const auto used = static_cast<size_t>(std::min(kTileRows, end - begin));
  std::vector<uint8_t> out(4 * used + 2 * words.size());
  for (size_t lane = 0; lane < used; ++lane) {
    for (size_t byte = 0; byte < 4; ++byte) out[4 * lane + byte] = static_cast<uint8_t>(lanes.x[lane] >> (8 * byte));
  }
  for (size_t i = 0; i < words.size(); ++i) {
    const uint16_t word = words[words.size() - 1 - i];
    out[4 * used + 2 * i] = static_cast<uint8_t>(word);
    out[4 * used + 2 * i + 1] = static_cast<uint8_t>(word >> 8);
  }
  return out;
}

RansDecoder::RansDecoder(const uint8_t* segment, int64_t bytes, int64_t lanes, int64_t cols,
                         const RansContexts& contexts, const RansTables& tables)
    : cols_(cols), contexts_(contexts), tables_(tables), at_(segment + 4 * lanes), end_(segment + bytes), used_(lanes) {
  if (bytes < 4 * lanes || bytes % 2) throw Malformed("a segment is too short or odd");
  std::fill(states_, states_ + kTileRows, kRansLow);
  for (int64_t lane = 0; lane < lanes; ++lane) {
    states_[lane] = load_u16(segment + 4 * lane) | load_u16(segment + 4 * lane + 2) << 16;
    if (states_[lane] < kRansLow) throw Malformed("a state is out of range");
  }
}

void RansDecoder::tile(int64_t row, int64_t lanes, bool by_vector, uint8_t* out) {
  if (by_vector) {
    contexts_.single() ? run<true, true>(row, lanes, out) : run<false, true>(row, lanes, out);
  } else {
    contexts_.single() ? run<true, false>(row, lanes, out) : run<false, false>(row, lanes, out);
  }
}

// Two table reads and a multiplication per code, no branch that depends on it; the 16 lanes are independent but for
// where the next word lies.
template <bool Single, bool ByVector>
void RansDecoder::run(int64_t row, int64_t lanes, uint8_t* out) {
  Lanes s;
  std::memcpy(s.x, states_, sizeof s.x);
  const uint8_t* at = at_;
  const uint8_t* const symbols = tables_.symbol.data();
  const uint32_t* const ranges = tables_.ranges.data();
  const uint8_t* by_row[kTileRows];
  for (int64_t r = 0; r < lanes; ++r) by_row[r] = contexts_.tables.data() + (Single ? 0 : contexts_.row_class[row + r]);
  const auto next = [&](int64_t k, int64_t r) {
    const uint32_t table = Single ? 0 : by_row[r][contexts_.col_class[k]];
    const uint32_t x = s.x[r], slot = x & (kRange - 1);
    const uint8_t symbol = symbols[table * kRange + slot];
    const uint32_t range = ranges[table * kSymbols + symbol];
    out[ByVector ? kVectorBytes * (k / 4) + 4 * r + k % 4 : kTileRows * k + r] = symbol;
    return (range & 0xFFFF) * (x >> kRangeBits) + slot - (range >> 16);
  };
  int64_t k = 0;
  if (lanes == kTileRows) {
    for (; k < cols_ && end_ - at >= 2 * kTileRows; ++k) {
      for (int64_t r = 0; r < kTileRows; ++r) {
        const uint32_t x = next(k, r);
        const uint32_t low = x < kRansLow;  // no branch: it would be guessed wrong one time in four
        s.x[r] = x << (16 * low) | (load_u16(at) & (0 - low));
        at += 2 * low;
      }
    }
  }
  for (; k < cols_; ++k) {  // near the end of the segment, or a tile of fewer rows
    for (int64_t r = 0; r < lanes; ++r) {
      uint32_t x = next(k, r);
      if (x < kRansLow) {
        if (end_ - at < 2) throw Malformed("a segment ends early");
        x = x << 16 | load_u16(at);
        at += 2;
      }
      s.x[r] = x;
    }
  }
  at_ = at;
  std::memcpy(states_, s.x, sizeof s.x);
}

void RansDecoder::finish() const {
  if (at_ != end_) throw Malformed("a segment ends late");
  for (int64_t lane = 0; lane < used_; ++lane) {
    if (states_[lane] != kRansLow) throw Malformed("a segment does not end where every encoder begins");
  }
}

}  // namespace scrimp
