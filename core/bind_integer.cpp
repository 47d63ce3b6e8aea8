// Networks in integers for Python: as bind.cpp, it checks types, shapes and ranges, releases the GIL, and nothing else.
#include "bind_integer.h"

#include <nanobind/ndarray.h>
#include <nanobind/stl/array.h>
#include <nanobind/stl/optional.h>
#include <nanobind/stl/pair.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/tuple.h>
#include <nanobind/stl/vector.h>

#include <algorithm>
#include <array>
#include <memory>
#include <optional>
#include <string>
#include <tuple>
#include <vector>

#include "bind_checks.h"
#include "integer.h"

namespace nb = nanobind;
using namespace nb::literals;

namespace scrimp {
namespace {

template <typename T, int N>
using In = nb::ndarray<const T, nb::ndim<N>, nb::c_contig, nb::device::cpu>;
// kind, inputs, output, weight, (rows, columns, stride, padding, groups), (pre, shift, low, high), multiplier, offset
using OpTuple = std::tuple<int, std::vector<int>, int, std::optional<In<int8_t, 2>>, std::array<int64_t, 5>,
                           std::array<int32_t, 4>, std::optional<In<int32_t, 1>>, std::optional<In<int32_t, 1>>>;

constexpr int64_t kLargestSide = int64_t{1} << 16;
constexpr int64_t kMostNumbers = int64_t{1} << 28;  // of an activation or a weight

bool within(int64_t n, int64_t low, int64_t high) { return low <= n && n <= high; }

template <typename T, typename Array>
std::vector<T> copied(const std::optional<Array>& array) {
  return array ? std::vector<T>(array->data(), array->data() + array->size()) : std::vector<T>();
}

std::vector<Image> checked_buffers(const std::vector<std::array<int64_t, 3>>& shapes) {
  require(!shapes.empty() && shapes.size() <= 65536, "1 … 65,536 buffers");
  std::vector<Image> buffers;
  for (const auto& [height, width, channels] : shapes) {
    require(within(height, 1, kLargestSide) && within(width, 1, kLargestSide) && within(channels, 1, kMostNumbers),
            "a side of a buffer is out of range");
    require(height * width <= kMostNumbers / channels, "a buffer has too many numbers");
    buffers.push_back({height, width, channels});
  }
  return buffers;
}

// The kernel fits into the padded picture, and what comes out has the shape of its buffer.
void check_window(const IntegerOp& op, const Image& in, const Image& out) {
  require(within(op.rows, 1, kLargestSide) && within(op.columns, 1, kLargestSide) &&
              within(op.stride, 1, kLargestSide) && within(op.padding, 0, std::min(op.rows, op.columns) - 1),
          "a kernel, stride or padding is out of range");
  const int64_t down = in.height + 2 * op.padding - op.rows, across = in.width + 2 * op.padding - op.columns;
  require(down >= 0 && across >= 0, "a kernel does not fit into its picture");
  require(out.height == down / op.stride + 1 && out.width == across / op.stride + 1, "an output has another shape");
}

void check_product(const IntegerOp& op, const Image& in, const Image& out, int64_t rows, int64_t inputs) {
  check_window(op, in, out);
  require(within(op.groups, 1, kMostNumbers) && in.channels % op.groups == 0 && out.channels % op.groups == 0,
          "groups must divide the channels");
  require(op.rows * op.columns <= kMostNumbers / (in.channels / op.groups), "a weight has too many inputs");
  require(rows == out.channels && inputs == op.rows * op.columns * (in.channels / op.groups),
          "a weight does not have the shape of its operation");
}

void check_pool(const IntegerOp& op, const Image& in, const Image& out) {
  check_window(op, in, out);
  require(op.padding == 0 && op.groups == 1 && in.channels == out.channels, "a pool keeps its channels");
}

void check_requantize(const IntegerOp& op, const Image& out, bool last) {
  const auto channels = static_cast<size_t>(out.channels);
  const bool add = op.kind == IntegerKind::kAdd;
  require(op.offset.size() == 1 || (!add && op.offset.size() == channels), "an offset per channel, or one");
  require(add ? op.multiplier.size() == 2 : op.multiplier.size() == op.offset.size(),
          "multipliers do not fit the operation");
  require(within(op.pre, 0, 31) && within(op.shift, 0, 31) && op.low <= op.high, "shifts or limits are out of range");
  require(last || (op.low >= -128 && op.high <= 127), "codes are -128 … 127");
}

void check_op(const IntegerOp& op, const std::vector<Image>& buffers, const std::optional<In<int8_t, 2>>& weight,
              bool last) {
  const Image &in = buffers[static_cast<size_t>(op.inputs[0])], &out = buffers[static_cast<size_t>(op.output)];
  require(weight.has_value() == (op.kind == IntegerKind::kProduct), "a product has a weight, nothing else has");
  require(!last || op.kind == IntegerKind::kProduct, "the last operation is a product");
  switch (op.kind) {
    case IntegerKind::kProduct:
      check_product(op, in, out, static_cast<int64_t>(weight->shape(0)), static_cast<int64_t>(weight->shape(1)));
      break;
    case IntegerKind::kMaxPool:
      check_pool(op, in, out);
      return;
    case IntegerKind::kAvgPool:
      check_pool(op, in, out);
      break;
    case IntegerKind::kAdd: {
      const Image& other = buffers[static_cast<size_t>(op.inputs[1])];
      for (const Image* image : {&other, &out})
        require(image->height == in.height && image->width == in.width && image->channels == in.channels,
                "an addition keeps its shape");
    }
  }
  check_requantize(op, out, last);
}

std::vector<IntegerOp> checked_ops(const std::vector<OpTuple>& tuples, const std::vector<Image>& buffers) {
  require(!tuples.empty(), "a network has at least one operation");
  std::vector<bool> made(buffers.size());
  made[0] = true;
  std::vector<IntegerOp> ops;
  for (const auto& [kind, inputs, output, weight, window, by, multiplier, offset] : tuples) {
    require(within(kind, 0, 3), "no such operation");
    require(inputs.size() == (static_cast<IntegerKind>(kind) == IntegerKind::kAdd ? 2U : 1U), "too few or many inputs");
    for (int input : inputs)
      require(within(input, 0, static_cast<int64_t>(buffers.size()) - 1) && made[static_cast<size_t>(input)],
              "an input was not made before");
    require(within(output, 0, static_cast<int64_t>(buffers.size()) - 1) && !made[static_cast<size_t>(output)],
            "an output is no new buffer");
    IntegerOp op{static_cast<IntegerKind>(kind),
                 inputs,
                 output,
                 window[0],
                 window[1],
                 window[2],
                 window[3],
                 window[4],
                 by[0],
                 by[1],
                 by[2],
                 by[3],
                 copied<int8_t>(weight),
                 copied<int32_t>(multiplier),
                 copied<int32_t>(offset)};
    check_op(op, buffers, weight, ops.size() + 1 == tuples.size());
    made[static_cast<size_t>(output)] = true;
    ops.push_back(std::move(op));
  }
  return ops;
}

void init(IntegerEngine* self, const std::vector<OpTuple>& tuples, const std::vector<std::array<int64_t, 3>>& shapes,
          int zero, int pixel_shift, int threads, const std::string& isa) {
  require(within(zero, 0, 255) && within(pixel_shift, 0, 7), "pixels are out of range");
  require(within(threads, 1, 1024), "1 … 1,024 threads");
  std::vector<Image> buffers = checked_buffers(shapes);
  std::vector<IntegerOp> ops = checked_ops(tuples, buffers);
  new (self) IntegerEngine(std::move(ops), std::move(buffers), zero, pixel_shift, threads, pick(isa));
}

void run(IntegerEngine& self, In<uint8_t, 4> pictures,
         nb::ndarray<int32_t, nb::ndim<2>, nb::c_contig, nb::device::cpu> logits) {
  const Image& picture = self.picture();
  require(static_cast<int64_t>(pictures.shape(1)) == picture.height &&
              static_cast<int64_t>(pictures.shape(2)) == picture.width &&
              static_cast<int64_t>(pictures.shape(3)) == picture.channels,
          "pictures have another shape");
  require(logits.shape(0) == pictures.shape(0) && static_cast<int64_t>(logits.shape(1)) == self.classes(),
          "logits must be (pictures, classes)");
  nb::gil_scoped_release release;
  self.run(pictures.data(), static_cast<int64_t>(pictures.shape(0)), logits.data());
}

}  // namespace

void bind_integer(nb::module_& m) {
  nb::class_<IntegerEngine>(m, "IntegerEngine")
      .def("__init__", &init, "ops"_a, "buffers"_a, "zero"_a, "pixel_shift"_a, "threads"_a, "isa"_a)
      .def("run", &run, "pictures"_a.noconvert(), "logits"_a.noconvert(),
           "pictures (n, height, width, channels) -> logits (n, classes)")
      .def_prop_ro("classes", &IntegerEngine::classes)
      .def_prop_ro("isa", [](const IntegerEngine& self) { return std::string(self.kernels().isa); });
}

}  // namespace scrimp
