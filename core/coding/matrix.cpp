#include "coding/matrix.h"

#include <algorithm>
#include <atomic>
#include <exception>
#include <mutex>

#include "packing.h"
#include "pool.h"

namespace scrimp {
namespace {

constexpr uint8_t kPowersOf3[5] = {1, 3, 9, 27, 81};

// Segments 0 ... count - 1, each by one thread; the first exception is thrown again by the caller.
template <typename Work>
void share_out(int64_t count, int threads, const Work& work) {
  std::atomic<int64_t> next{0};
  std::exception_ptr failed;
  std::mutex guard;
  const auto body = [&](int) {
    for (int64_t i; (i = next.fetch_add(1)) < count;) {
      try {
        work(i);
      } catch (...) {
        const std::lock_guard lock(guard);
        if (!failed) failed = std::current_exception();
        next.store(count);
      }
    }
  };
  if (threads == 1 || count == 1) {
    body(0);
  } else {
    Pool(static_cast<int>(std::min<int64_t>(threads, count))).run(body);
  }
  if (failed) std::rethrow_exception(failed);
}

// Codes of one tile, by vectors of 4 inputs (64 bytes each) -> one tile of a plane.
void pack_tile(const uint8_t* codes, int64_t vectors, const PlaneOut& to, uint8_t* tile) {
  const int64_t fields = plane_span(to.width) / 4;
  const auto mask = static_cast<uint8_t>(to.width == 0 ? 3 : (1 << to.width) - 1);
  for (int64_t vector = 0; vector < vectors; ++vector) {
    uint8_t packed[kVectorBytes] = {};
    for (int64_t i = 0; i < fields; ++i) {
      const uint8_t* from = codes + (vector * fields + i) * kVectorBytes;
      const int place = to.width == 0 ? kPowersOf3[i] : 1 << (to.width * i);
      for (int64_t b = 0; b < kVectorBytes; ++b) {
        packed[b] = static_cast<uint8_t>(packed[b] + (from[b] >> to.shift & mask) * place);
      }
    }
    std::copy(packed, packed + kVectorBytes, tile + vector * kVectorBytes);
  }
}

}  // namespace

std::vector<uint8_t> encode_matrix(const uint8_t* codes, int64_t rows, int64_t cols, int64_t segment_rows,
                                   const RansContexts& contexts, const RansTables& tables, int threads,
                                   std::vector<int64_t>& ends) {
  const int64_t count = (rows + segment_rows - 1) / segment_rows;
  std::vector<std::vector<uint8_t>> pieces(static_cast<size_t>(count));
  share_out(count, threads, [&](int64_t i) {
    const int64_t begin = i * segment_rows, end = std::min(rows, begin + segment_rows);
    pieces[static_cast<size_t>(i)] = rans_encode(codes, cols, begin, end, contexts, tables);
  });
  std::vector<uint8_t> stream;
  for (const auto& piece : pieces) {
    stream.insert(stream.end(), piece.begin(), piece.end());
    ends.push_back(static_cast<int64_t>(stream.size()));
  }
  return stream;
}

void decode_matrix(const Segments& segments, int64_t rows, int64_t cols, const RansContexts& contexts,
                   const RansTables& tables, int threads, const std::vector<PlaneOut>& planes, uint8_t* raw) {
  int64_t room = 0;  // bytes of a tile's codes, columns rounded up to whole vectors of every plane
  for (const PlaneOut& plane : planes) {
    const int64_t span = plane_span(plane.width);
    room = std::max(room, (cols + span - 1) / span * span * kTileRows);
  }
  share_out(static_cast<int64_t>(segments.ends.size()), threads, [&](int64_t i) {
    const int64_t begin = i * segments.segment_rows, end = std::min(rows, begin + segments.segment_rows);
    const int64_t from = i == 0 ? 0 : segments.ends[static_cast<size_t>(i - 1)];
    RansDecoder decoder(segments.stream + from, segments.ends[static_cast<size_t>(i)] - from,
                        std::min(kTileRows, end - begin), cols, contexts, tables);
    std::vector<uint8_t> codes(static_cast<size_t>(room));
    for (int64_t row = begin; row < end; row += kTileRows) {
      const int64_t lanes = std::min(kTileRows, end - row), tile = row / kTileRows;
      if (planes.empty()) {
        uint8_t* out = raw + tile * cols * kTileRows;
        if (lanes < kTileRows) std::fill(out, out + cols * kTileRows, uint8_t{0});
        decoder.tile(row, lanes, false, out);
        continue;
      }
      if (lanes < kTileRows) std::fill(codes.begin(), codes.end(), uint8_t{0});
      decoder.tile(row, lanes, true, codes.data());
      for (const PlaneOut& to : planes) {
        const int64_t span = plane_span(to.width), vectors = (cols + span - 1) / span;
        pack_tile(codes.data(), vectors, to, to.plane + tile * vectors * kVectorBytes);
      }
    }
    decoder.finish();
  });
}

void count_codes(const uint8_t* codes, int64_t rows, int64_t cols, const uint8_t* row_class, const uint8_t* col_class,
                 uint64_t* counts) {
  for (int64_t row = 0; row < rows; ++row) {
    uint64_t* of_row = counts + row_class[row] * kSymbols;
    for (int64_t col = 0; col < cols; ++col) ++of_row[col_class[col] * kSymbols + codes[row * cols + col]];
  }
}

void spreads(const uint8_t* codes, int64_t rows, int64_t cols, const float* squares, double* row_means,
             double* col_means) {
  std::fill(col_means, col_means + cols, 0.0);
  std::vector<float> of_cols(static_cast<size_t>(cols));
  int64_t counted = 0;
  for (int64_t row = 0; row < rows; ++row) {
    const uint8_t* from = codes + row * cols;
    float sums[4] = {0, 0, 0, 0};
    for (int64_t col = 0; col < cols; ++col) {
      of_cols[static_cast<size_t>(col)] = squares[from[col]];
      sums[col % 4] += of_cols[static_cast<size_t>(col)];
    }
    const double mean = (static_cast<double>(sums[0]) + sums[1] + sums[2] + sums[3]) / static_cast<double>(cols);
    row_means[row] = mean;
    if (mean <= 0) continue;
    ++counted;
    for (int64_t col = 0; col < cols; ++col) col_means[col] += of_cols[static_cast<size_t>(col)] / mean;
  }
  for (int64_t col = 0; col < cols; ++col) col_means[col] /= static_cast<double>(std::max<int64_t>(counted, 1));
}

}  // namespace scrimp
