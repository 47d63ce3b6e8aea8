// The coder for Python: as bind.cpp, it checks types, shapes and ranges, releases the GIL, and nothing else.
#include "bind_coding.h"

#include <nanobind/ndarray.h>
#include <nanobind/stl/pair.h>
#include <nanobind/stl/vector.h>

#include <algorithm>
#include <new>
#include <stdexcept>

#include "bind_checks.h"
#include "coding/matrix.h"
#include "packing.h"

namespace nb = nanobind;
using namespace nb::literals;

namespace scrimp {
namespace {

using Codes = nb::ndarray<const uint8_t, nb::ndim<2>, nb::c_contig, nb::device::cpu>;
using Bytes = nb::ndarray<const uint8_t, nb::ndim<1>, nb::c_contig, nb::device::cpu>;
using Frequencies = nb::ndarray<const uint16_t, nb::ndim<2>, nb::c_contig, nb::device::cpu>;
using Squares = nb::ndarray<const float, nb::ndim<1>, nb::c_contig, nb::device::cpu>;
template <typename T>
using Array = nb::ndarray<nb::numpy, T>;

// Zeros, on a 64-byte boundary: the kernels read whole vectors of decoded planes.
template <typename T>
Array<T> new_array(const std::vector<size_t>& shape) {
  constexpr std::align_val_t kAlignment{kVectorBytes};
  size_t count = 1;
  for (size_t side : shape) count *= side;
  T* data = new (kAlignment) T[count]();
  nb::capsule owner(data, [](void* memory) noexcept { operator delete[](memory, kAlignment); });
  return Array<T>(data, shape.size(), shape.data(), owner);
}

int64_t size_of(const Bytes& bytes) { return static_cast<int64_t>(bytes.size()); }

int64_t highest(const Bytes& classes) {
  return classes.size() == 0 ? 0 : *std::max_element(classes.data(), classes.data() + classes.size());
}

// The sum of a row's and a column's class is always an index of `tables`, and that always one of `count` tables.
RansContexts checked(const Bytes& row_class, const Bytes& col_class, const Bytes& tables, int64_t rows, int64_t cols,
                     int64_t count) {
  require(size_of(row_class) == rows && size_of(col_class) == cols, "a class per row and per column is needed");
  require(size_of(tables) > highest(row_class) + highest(col_class), "a class has no table");
  require(highest(tables) < count && (tables.size() > 1 || count == 1), "there is no such table");
  return {row_class.data(), col_class.data(), {tables.data(), tables.data() + tables.size()}};
}

RansTables made(const Frequencies& frequencies) {
  const auto tables = static_cast<int64_t>(frequencies.shape(0)), levels = static_cast<int64_t>(frequencies.shape(1));
  require(tables >= 1 && tables <= 256 && levels >= 1 && levels <= kSymbols, "1 ... 256 tables of 1 ... 256 levels");
  return {frequencies.data(), tables, levels};
}

void check_sides(int64_t rows, int64_t cols, int64_t segment_rows, int threads) {
  require(rows > 0 && cols > 0 && rows < int64_t{1} << 40 && cols < int64_t{1} << 40, "sides out of range");
  require(rows <= (int64_t{1} << 50) / cols, "too many weights");
  require(segment_rows > 0 && segment_rows % kTileRows == 0, "a segment is whole tiles");
  require(threads >= 1 && threads <= 1024, "threads out of range");
}

Array<uint16_t> frequencies_of(const Codes& stored) {
  const auto tables = static_cast<int64_t>(stored.shape(0)), levels = static_cast<int64_t>(stored.shape(1));
  require(levels >= 1 && levels <= kSymbols, "1 ... 256 levels");
  auto out = new_array<uint16_t>({stored.shape(0), stored.shape(1)});
  for (int64_t at = 0; at < tables; ++at) {
    stored_frequencies(stored.data() + at * levels, levels, out.data() + at * levels);
  }
  return out;
}

nb::tuple encode(const Codes& codes, const Bytes& row_class, const Bytes& col_class, const Bytes& tables,
                 const Frequencies& frequencies, int64_t segment_rows, int threads) {
  const auto rows = static_cast<int64_t>(codes.shape(0)), cols = static_cast<int64_t>(codes.shape(1));
  check_sides(rows, cols, segment_rows, threads);
  const auto contexts = checked(row_class, col_class, tables, rows, cols, static_cast<int64_t>(frequencies.shape(0)));
  std::vector<uint8_t> stream;
  std::vector<int64_t> ends;
  {
    nb::gil_scoped_release release;
    const RansTables ranges = made(frequencies);
    stream = encode_matrix(codes.data(), rows, cols, segment_rows, contexts, ranges, threads, ends);
  }
  auto out = new_array<uint8_t>({stream.size()});
  std::copy(stream.begin(), stream.end(), out.data());
  return nb::make_tuple(out, ends);
}

nb::list decode(const Bytes& stream, std::vector<int64_t> ends, std::pair<int64_t, int64_t> shape,
                const Bytes& row_class, const Bytes& col_class, const Bytes& tables, const Frequencies& frequencies,
                int64_t segment_rows, const std::vector<int>& widths, int threads) {
  const auto [rows, cols] = shape;
  check_sides(rows, cols, segment_rows, threads);
  const auto contexts = checked(row_class, col_class, tables, rows, cols, static_cast<int64_t>(frequencies.shape(0)));
  require(static_cast<int64_t>(ends.size()) == (rows + segment_rows - 1) / segment_rows, "segments are missing");
  require(std::is_sorted(ends.begin(), ends.end()) && ends.front() >= 0 && ends.back() == size_of(stream),
          "segments do not lie one after the other");
  const auto tiles = static_cast<size_t>((rows + kTileRows - 1) / kTileRows);
  std::vector<Array<uint8_t>> arrays;
  std::vector<PlaneOut> planes;
  int shift = 0;
  for (int width : widths) {
    require(width == 0 || width == 1 || width == 2 || width == 4 || width == 8, "no such plane");
    const int64_t span = plane_span(width);
    arrays.push_back(new_array<uint8_t>({tiles, static_cast<size_t>((cols + span - 1) / span), kVectorBytes}));
    planes.push_back({shift, width, arrays.back().data()});
    shift += width;
  }
  if (widths.empty()) arrays.push_back(new_array<uint8_t>({tiles, static_cast<size_t>(cols), kTileRows}));
  {
    nb::gil_scoped_release release;
    const RansTables ranges = made(frequencies);
    decode_matrix({stream.data(), std::move(ends), segment_rows}, rows, cols, contexts, ranges, threads, planes,
                  arrays.front().data());
  }
  nb::list out;
  for (auto& array : arrays) out.append(array);
  return out;
}

Array<uint64_t> counts(const Codes& codes, const Bytes& row_class, const Bytes& col_class) {
  const auto rows = static_cast<int64_t>(codes.shape(0)), cols = static_cast<int64_t>(codes.shape(1));
  require(size_of(row_class) == rows && size_of(col_class) == cols, "a class per row and per column is needed");
  auto out = new_array<uint64_t>({static_cast<size_t>(highest(row_class) + highest(col_class) + 1), kSymbols});
  nb::gil_scoped_release release;
  count_codes(codes.data(), rows, cols, row_class.data(), col_class.data(), out.data());
  return out;
}

nb::tuple measured_spreads(const Codes& codes, const Squares& squares) {
  require(squares.size() == kSymbols, "a square for each of 256 codes is needed");
  auto row_means = new_array<double>({codes.shape(0)}), col_means = new_array<double>({codes.shape(1)});
  {
    nb::gil_scoped_release release;
    spreads(codes.data(), static_cast<int64_t>(codes.shape(0)), static_cast<int64_t>(codes.shape(1)), squares.data(),
            row_means.data(), col_means.data());
  }
  return nb::make_tuple(row_means, col_means);
}

}  // namespace

void bind_coding(nb::module_& m) {
  m.attr("RANGE_BITS") = kRangeBits;
  nb::exception<Malformed>(m, "Malformed", PyExc_ValueError);
  m.attr("HIGHEST_BYTE") = kHighestByte;
  m.def("frequencies", &frequencies_of, "stored"_a, "Tables (tables, levels) as they are stored -> frequencies.");
  m.def("rans_encode", &encode, "codes"_a, "row_class"_a, "col_class"_a, "tables"_a, "frequencies"_a, "segment_rows"_a,
        "threads"_a = 1);
  m.def("rans_decode", &decode, "stream"_a, "ends"_a, "shape"_a, "row_class"_a, "col_class"_a, "tables"_a,
        "frequencies"_a, "segment_rows"_a, "widths"_a, "threads"_a = 1);
  m.def("count_codes", &counts, "codes"_a, "row_class"_a, "col_class"_a);
  m.def("spreads", &measured_spreads, "codes"_a, "squares"_a);
}

}  // namespace scrimp
