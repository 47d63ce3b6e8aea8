// What calibrated methods need, for Python, beside bind.cpp: it checks types, shapes and ranges, releases the GIL, no
// more.
#include "bind_rounding.h"

#include <nanobind/ndarray.h>
#include <nanobind/stl/optional.h>
#include <nanobind/stl/string.h>

#include <optional>
#include <stdexcept>
#include <string>
#include <vector>

#include "bind_checks.h"
#include "moments.h"
#include "scan.h"

namespace nb = nanobind;
using namespace nb::literals;

namespace scrimp {
namespace {

template <typename T, int N>
using In = nb::ndarray<const T, nb::ndim<N>, nb::c_contig, nb::device::cpu>;
template <typename T, int N>
using Out = nb::ndarray<T, nb::ndim<N>, nb::c_contig, nb::device::cpu>;

// A Rounding and the arrays that keep its memory alive.
struct HeldRounding {
  Rounding rounding;
  std::optional<In<float, 1>> bounds, numbers;
  std::optional<In<uint16_t, 1>> codes;
};

HeldRounding integers(float least, float most) {
  require(most > least && most - least < 65536.0F, "an integer code has 2 … 2^16 levels");
  return {{least, most, 0, nullptr, nullptr, nullptr}, {}, {}, {}};
}

HeldRounding table(In<float, 1> bounds, In<float, 1> numbers, In<uint16_t, 1> codes) {
  const auto levels = static_cast<int64_t>(numbers.size());
  require(levels >= 2 && (levels & (levels - 1)) == 0, "a table has a power of two of levels");
  require(static_cast<int64_t>(bounds.size()) == levels - 1 && static_cast<int64_t>(codes.size()) == levels,
          "a table has a code per level and a bound between two");
  return {{0.0F, 0.0F, levels, bounds.data(), numbers.data(), codes.data()}, bounds, numbers, codes};
}

void weighted_sums(const HeldRounding& rounding, nb::ndarray<const float, nb::ndim<2>, nb::device::cpu> w,
                   In<float, 1> importance, In<float, 1> scales, In<float, 1> divisors,
                   std::optional<In<float, 1>> lows, Out<float, 2> sums, const std::string& isa) {
  const size_t inputs = w.shape(0), blocks = w.shape(1);
  require(blocks > 0 && (blocks == 1 || w.stride(1) == 1), "the weights of an input must lie side by side");
  require(importance.size() == inputs, "an importance per input is needed");
  require(scales.size() == blocks && divisors.size() == blocks && (!lows || lows->size() == blocks),
          "a scale per block is needed");
  require(sums.shape(0) == 4 && sums.shape(1) == blocks, "sums must be (4, blocks)");
  const Kernels& kernels = pick(isa);
  nb::gil_scoped_release release;
  kernels.weighted_sums(rounding.rounding, w.data(), w.stride(0), importance.data(), static_cast<int64_t>(inputs),
                        static_cast<int64_t>(blocks), scales.data(), divisors.data(), lows ? lows->data() : nullptr,
                        sums.data());
}

void scan_symmetric_of(In<float, 2> w, int half, In<double, 1> peaks, In<double, 1> coarse, In<double, 1> fine,
                       Out<double, 1> fits, const std::string& isa) {
  require(peaks.size() == w.shape(1) && fits.size() == w.shape(1), "a peak and a fit per block are needed");
  require(half > 0 && half < 32768, "an integer code has 2 … 2^16 levels");
  const Kernels& kernels = pick(isa);
  nb::gil_scoped_release release;
  scan_symmetric(w.data(), static_cast<int64_t>(w.shape(0)), static_cast<int64_t>(w.shape(1)), static_cast<float>(half),
                 peaks.data(), {coarse.data(), coarse.size()}, {fine.data(), fine.size()}, fits.data(), kernels);
}

void sweep(const HeldRounding& rounding, Out<float, 3> weights, In<float, 2> feedback, In<int32_t, 1> group,
           In<float, 2> scales, In<float, 2> divisors, std::optional<In<float, 2>> lows, Out<uint16_t, 3> codes,
           int64_t begin, int64_t end, int64_t strip_begin, int64_t strip_end, const std::string& isa) {
  const auto strips = static_cast<int64_t>(weights.shape(0)), inputs = static_cast<int64_t>(weights.shape(1));
  const auto same = [&](const auto& a) {
    return a.shape(0) == scales.shape(0) && static_cast<int64_t>(a.shape(1)) == strips * kStripRows;
  };
  require(static_cast<int64_t>(weights.shape(2)) == kStripRows, "weights must be (strips, K, STRIP_ROWS)");
  require(
      codes.shape(0) == weights.shape(0) && codes.shape(1) == weights.shape(1) && codes.shape(2) == weights.shape(2),
      "codes must have the shape of the weights");
  require(static_cast<int64_t>(feedback.shape(0)) == inputs && static_cast<int64_t>(feedback.shape(1)) == inputs,
          "feedback must be (K, K)");
  require(same(scales) && same(divisors) && (!lows || same(*lows)), "scales must be (groups, rows of all strips)");
  require(static_cast<int64_t>(group.size()) == inputs, "a group per input is needed");
  for (size_t k = 0; k < group.size(); ++k)
    require(group(k) >= 0 && group(k) < static_cast<int64_t>(scales.shape(0)), "no such group");
  require(0 <= begin && begin <= end && end <= inputs, "inputs out of range");
  require(0 <= strip_begin && strip_begin <= strip_end && strip_end <= strips, "strips out of range");
  const Kernels& kernels = pick(isa);
  const Sweep state{.rounding = rounding.rounding,
                    .inputs = inputs,
                    .rows_padded = strips * kStripRows,
                    .begin = begin,
                    .end = end,
                    .weights = weights.data(),
                    .feedback = feedback.data(),
                    .group = group.data(),
                    .scales = scales.data(),
                    .divisors = divisors.data(),
                    .lows = lows ? lows->data() : nullptr,
                    .codes = codes.data()};
  nb::gil_scoped_release release;
  kernels.sweep(state, strip_begin, strip_end);
}

void sweep_both(const HeldRounding& rounding, Out<float, 2> weights, In<float, 2> by_input, In<float, 2> by_row,
                In<int32_t, 1> group, In<float, 2> scales, In<float, 2> divisors, std::optional<In<float, 2>> lows,
                Out<uint16_t, 2> codes, const std::string& isa) {
  const size_t rows = weights.shape(0), inputs = weights.shape(1);
  const auto shaped = [](const auto& a, size_t n, size_t k) { return a.shape(0) == n && a.shape(1) == k; };
  require(shaped(codes, rows, inputs), "codes must have the shape of the weights");
  require(shaped(by_input, inputs, inputs), "by_input must be (K, K)");
  require(shaped(by_row, rows, rows), "by_row must be (N, N)");
  const size_t groups = scales.shape(0);
  require(shaped(scales, groups, rows) && shaped(divisors, groups, rows) && (!lows || shaped(*lows, groups, rows)),
          "scales must be (groups, N)");
  require(group.size() == inputs, "a group per input is needed");
  for (size_t k = 0; k < inputs; ++k)
    require(group(k) >= 0 && group(k) < static_cast<int64_t>(groups), "no such group");
  const Kernels& kernels = pick(isa);
  nb::gil_scoped_release release;
  std::vector<float> scratch((inputs + 2 * rows) * static_cast<size_t>(kAbreast));
  kernels.sweep_both({.rounding = rounding.rounding,
                      .rows = static_cast<int64_t>(rows),
                      .inputs = static_cast<int64_t>(inputs),
                      .weights = weights.data(),
                      .by_input = by_input.data(),
                      .by_row = by_row.data(),
                      .group = group.data(),
                      .scales = scales.data(),
                      .divisors = divisors.data(),
                      .lows = lows ? lows->data() : nullptr,
                      .codes = codes.data(),
                      .scratch = scratch.data()});
}

void add_moments_of(In<float, 2> x, Out<double, 2> moments, int threads, const std::string& isa) {
  require(moments.shape(0) == x.shape(1) && moments.shape(1) == x.shape(1), "moments must be (K, K)");
  require(threads > 0 && threads <= 1024, "settings out of range");
  const Kernels& kernels = pick(isa);
  nb::gil_scoped_release release;
  Pool pool(threads);
  add_moments(x.data(), static_cast<int64_t>(x.shape(0)), static_cast<int64_t>(x.shape(1)), moments.data(), pool,
              kernels);
}

void add_cross_moments_of(In<float, 2> a, In<float, 2> b, Out<double, 2> moments, int threads, const std::string& isa) {
  require(a.shape(0) == b.shape(0), "both must have the same tokens");
  require(moments.shape(0) == a.shape(1) && moments.shape(1) == b.shape(1), "moments must be (N, K)");
  require(threads > 0 && threads <= 1024, "settings out of range");
  const Kernels& kernels = pick(isa);
  nb::gil_scoped_release release;
  Pool pool(threads);
  add_cross_moments(a.data(), static_cast<int64_t>(a.shape(1)), b.data(), static_cast<int64_t>(b.shape(0)),
                    static_cast<int64_t>(b.shape(1)), moments.data(), pool, kernels);
}

bool cholesky_of(Out<double, 2> a, int threads, const std::string& isa) {
  require(a.shape(0) == a.shape(1), "a must be square");
  require(threads > 0 && threads <= 1024, "settings out of range");
  const Kernels& kernels = pick(isa);
  nb::gil_scoped_release release;
  Pool pool(threads);
  return cholesky(a.data(), static_cast<int64_t>(a.shape(0)), pool, kernels);
}

}  // namespace

void bind_rounding(nb::module_& m) {
  m.attr("STRIP_ROWS") = kStripRows;
  nb::class_<HeldRounding>(m, "Rounding")
      .def_static("integers", &integers, "least"_a, "most"_a)
      .def_static("table", &table, "bounds"_a, "numbers"_a, "codes"_a);
  m.def("weighted_sums", &weighted_sums, "rounding"_a, "w"_a, "importance"_a, "scales"_a, "divisors"_a, "lows"_a.none(),
        "sums"_a, "isa"_a);
  m.def("scan_symmetric", &scan_symmetric_of, "w"_a, "half"_a, "peaks"_a, "coarse"_a, "fine"_a, "fits"_a, "isa"_a,
        "The best fits (M,) of the blocks w (G, M), as quantize/search.py searches them.");
  m.def("sweep", &sweep, "rounding"_a, "weights"_a, "feedback"_a, "group"_a, "scales"_a, "divisors"_a, "lows"_a.none(),
        "codes"_a, "begin"_a, "end"_a, "strip_begin"_a, "strip_end"_a, "isa"_a);
  m.def("sweep_both", &sweep_both, "rounding"_a, "weights"_a, "by_input"_a, "by_row"_a, "group"_a, "scales"_a,
        "divisors"_a, "lows"_a.none(), "codes"_a, "isa"_a);
  m.def("add_moments", &add_moments_of, "x"_a, "moments"_a, "threads"_a, "isa"_a,
        "moments (K, K) += x^T x, upper triangle, of x (T, K).");
  m.def("add_cross_moments", &add_cross_moments_of, "a"_a, "b"_a, "moments"_a, "threads"_a, "isa"_a,
        "moments (N, K) += a^T b, of a (T, N) and b (T, K).");
  m.def("cholesky", &cholesky_of, "a"_a, "threads"_a, "isa"_a,
        "L of A = L L^T in place of a's lower triangle; False when there is none.");
}

}  // namespace scrimp
