#include "integer_stage.h"

#include <algorithm>
#include <cstring>

namespace scrimp {
namespace {

constexpr int64_t kMostRows = 48;             // of one call of the product
constexpr int64_t kMostGathered = 1 << 18;    // numbers, unless one row has more
constexpr int64_t kWidth = kIntegerChannels;  // outputs that are summed together

int64_t round_up(int64_t n) { return (n + kWidth - 1) / kWidth; }

// Sums wrap where a program was never checked, as they do in NumPy.
int32_t times(int32_t a, int32_t b) {
  return static_cast<int32_t>(static_cast<uint32_t>(a) * static_cast<uint32_t>(b));
}

int32_t plus(int32_t a, int32_t b) { return static_cast<int32_t>(static_cast<uint32_t>(a) + static_cast<uint32_t>(b)); }

// Values of the channels of a group in blocks of 16, the last one filled up with zeros.
std::vector<int32_t> spread(const std::vector<int32_t>& values, int64_t groups, int64_t outputs, int64_t blocks) {
  std::vector<int32_t> found(static_cast<size_t>(groups * blocks * kWidth));
  for (int64_t g = 0; g < groups; ++g)
    for (int64_t n = 0; n < outputs; ++n)
      found[static_cast<size_t>(g * blocks * kWidth + n)] =
          values[values.size() == 1 ? 0 : static_cast<size_t>(g * outputs + n)];
  return found;
}

std::vector<int16_t> in_blocks(const IntegerStage& s) {
  std::vector<int16_t> found(static_cast<size_t>(s.op->groups * s.blocks * s.pairs * kWidth * 2));
  for (int64_t row = 0; row < s.op->groups * s.outputs; ++row) {
    const int64_t group = row / s.outputs, n = row % s.outputs;
    int16_t* to = found.data() + (group * s.blocks + n / kWidth) * s.pairs * kWidth * 2 + n % kWidth * 2;
    for (int64_t k = 0; k < s.inputs; ++k)
      to[k / 2 * kWidth * 2 + k % 2] = s.op->weight[static_cast<size_t>(row * s.inputs + k)];
  }
  return found;
}

std::vector<int16_t> by_channel(const IntegerStage& s) {
  const int64_t points = s.op->rows * s.op->columns, channels = s.in.channels;
  std::vector<int16_t> found(static_cast<size_t>(points * channels), 1);
  if (s.op->kind == IntegerKind::kProduct)
    for (int64_t c = 0; c < channels; ++c)
      for (int64_t k = 0; k < points; ++k)
        found[static_cast<size_t>(k * channels + c)] = s.op->weight[static_cast<size_t>(c * points + k)];
  return found;
}

// Where the kernel lies for one point of the output: rows and columns of it that are inside the picture.
struct Window {
  const int16_t* picture;
  int64_t top, left;  // of the kernel, may be negative
  int64_t row_begin, row_end, column_begin, column_end;
};

Window window(const IntegerStage& s, const int16_t* pictures, int64_t point) {
  const IntegerOp& op = *s.op;
  const int64_t inside = point % s.out.points();
  const int64_t top = inside / s.out.width * op.stride - op.padding;
  const int64_t left = inside % s.out.width * op.stride - op.padding;
  return {pictures + point / s.out.points() * s.in.size(),
          top,
          left,
          std::max<int64_t>(0, -top),
          std::min(op.rows, s.in.height - top),
          std::max<int64_t>(0, -left),
          std::min(op.columns, s.in.width - left)};
}

const int16_t* at(const IntegerStage& s, const Window& w, int64_t row, int64_t column) {
  return w.picture + ((w.top + row) * s.in.width + w.left + column) * s.in.channels;
}

// What one point of the output reads of a group: [rows][columns][channels of the group], zeros outside and behind.
void gather(const IntegerStage& s, const Window& w, int64_t group, int16_t* to) {
  const int64_t channels = s.in.channels / s.op->groups, line = s.op->columns * channels;
  const bool whole =
      w.row_begin == 0 && w.row_end == s.op->rows && w.column_begin == 0 && w.column_end == s.op->columns;
  if (!whole) std::memset(to, 0, static_cast<size_t>(s.pairs * 2) * sizeof(int16_t));
  to[s.pairs * 2 - 1] = 0;
  for (int64_t row = w.row_begin; row < w.row_end; ++row) {
    int16_t* into = to + row * line + w.column_begin * channels;
    if (s.op->groups == 1) {
      const int64_t numbers = (w.column_end - w.column_begin) * channels;
      if (numbers > 0) std::memcpy(into, at(s, w, row, w.column_begin), static_cast<size_t>(numbers) * sizeof(int16_t));
      continue;
    }
    for (int64_t column = w.column_begin; column < w.column_end; ++column, into += channels)
      std::memcpy(into, at(s, w, row, column) + group * channels, static_cast<size_t>(channels) * sizeof(int16_t));
  }
}

// Requantized sums to where they belong: `outputs` of every row, `stride` apart.
template <typename T>
void store(const int32_t* sums, int64_t rows, int64_t width, int64_t outputs, T* to, int64_t stride) {
  for (int64_t r = 0; r < rows; ++r)
    for (int64_t n = 0; n < outputs; ++n) to[r * stride + n] = static_cast<T>(sums[r * width + n]);
}

void finish(const IntegerStage& s, const IntegerCall& call, const Kernels& kernels, int32_t* sums, int64_t first,
            int64_t rows, int64_t group) {
  const int64_t width = s.blocks * kWidth, at = first * s.out.channels + group * s.outputs;
  kernels.requantize(sums, rows,
                     {s.multiplier.data() + group * width, s.offset.data() + group * width, width, s.op->pre,
                      s.op->shift, s.op->low, s.op->high});
  if (call.logits)
    store(sums, rows, width, s.outputs, call.logits + at, s.out.channels);
  else
    store(sums, rows, width, s.outputs, call.codes + at, s.out.channels);
}

void multiply(const IntegerStage& s, const IntegerCall& call, IntegerWorker& worker, const Kernels& kernels) {
  const int64_t points = call.pictures * s.out.points();
  for (int64_t first = 0; first < points; first += s.rows) {
    const int64_t rows = std::min(s.rows, points - first);
    for (int64_t group = 0; group < s.op->groups; ++group) {
      for (int64_t r = 0; r < rows; ++r)
        gather(s, window(s, call.first, first + r), group, worker.inputs.data() + r * s.pairs * 2);
      const int16_t* weight = s.weight.data() + group * s.blocks * s.pairs * kWidth * 2;
      kernels.integer_product({rows, s.pairs, worker.inputs.data(), weight, s.blocks, worker.sums.data()});
      finish(s, call, kernels, worker.sums.data(), first, rows, group);
    }
  }
}

// Sums over the kernel of each channel alone.
void sum_by_channel(const IntegerStage& s, const IntegerCall& call, IntegerWorker& worker, const Kernels& kernels) {
  const int64_t points = call.pictures * s.out.points(), channels = s.in.channels, width = s.blocks * kWidth;
  for (int64_t first = 0; first < points; first += s.rows) {
    const int64_t rows = std::min(s.rows, points - first);
    std::fill_n(worker.sums.data(), rows * width, 0);
    for (int64_t r = 0; r < rows; ++r) {
      const Window w = window(s, call.first, first + r);
      int32_t* sums = worker.sums.data() + r * width;
      for (int64_t row = w.row_begin; row < w.row_end; ++row) {
        for (int64_t column = w.column_begin; column < w.column_end; ++column) {
          const int16_t* x = at(s, w, row, column);
          const int16_t* weight = s.weight.data() + (row * s.op->columns + column) * channels;
          for (int64_t c = 0; c < channels; ++c) sums[c] = plus(sums[c], x[c] * weight[c]);
        }
      }
    }
    finish(s, call, kernels, worker.sums.data(), first, rows, 0);
  }
}

void highest(const IntegerStage& s, const IntegerCall& call) {
  const int64_t points = call.pictures * s.out.points(), channels = s.in.channels;
  for (int64_t point = 0; point < points; ++point) {
    const Window w = window(s, call.first, point);
    int16_t* to = call.codes + point * channels;
    std::copy_n(at(s, w, 0, 0), channels, to);
    for (int64_t row = 0; row < s.op->rows; ++row) {
      for (int64_t column = 0; column < s.op->columns; ++column) {
        const int16_t* x = at(s, w, row, column);
        for (int64_t c = 0; c < channels; ++c) to[c] = to[c] > x[c] ? to[c] : x[c];
      }
    }
  }
}

void add(const IntegerStage& s, const IntegerCall& call) {
  const IntegerOp& op = *s.op;
  const int32_t a = op.multiplier[0], b = op.multiplier[1], offset = op.offset[0];
  const int64_t numbers = call.pictures * s.out.size();
  for (int64_t i = 0; i < numbers; ++i) {
    const int32_t sum = plus(plus(times(call.first[i], a), times(call.second[i], b)), offset) >> op.shift;
    call.codes[i] = static_cast<int16_t>(std::clamp(sum, op.low, op.high));
  }
}

}  // namespace

IntegerStage prepare(const IntegerOp& op, const std::vector<Image>& buffers) {
  IntegerStage s{};
  s.op = &op;
  s.in = buffers[static_cast<size_t>(op.inputs[0])];
  s.out = buffers[static_cast<size_t>(op.output)];
  if (op.kind != IntegerKind::kProduct && op.kind != IntegerKind::kAvgPool) return s;
  const bool alone = op.groups == s.in.channels && op.groups == s.out.channels && op.groups > 1;
  s.by_channel = op.kind == IntegerKind::kAvgPool || alone;
  s.outputs = s.by_channel ? s.out.channels : s.out.channels / op.groups;
  s.inputs = op.rows * op.columns * (s.by_channel ? 1 : s.in.channels / op.groups);
  s.pairs = (s.inputs + 1) / 2;
  s.blocks = round_up(s.outputs);
  const int64_t most = std::max(s.pairs * 2, s.blocks * kWidth);
  s.rows = std::clamp<int64_t>(kMostGathered / most, 1, kMostRows);
  s.weight = s.by_channel ? by_channel(s) : in_blocks(s);
  const int64_t groups = s.by_channel ? 1 : op.groups;
  s.multiplier = spread(op.multiplier, groups, s.outputs, s.blocks);
  s.offset = spread(op.offset, groups, s.outputs, s.blocks);
  return s;
}

void run(const IntegerStage& s, const IntegerCall& call, IntegerWorker& worker, const Kernels& kernels) {
  switch (s.op->kind) {
    case IntegerKind::kProduct:
    case IntegerKind::kAvgPool:
      return s.by_channel ? sum_by_channel(s, call, worker, kernels) : multiply(s, call, worker, kernels);
    case IntegerKind::kMaxPool:
      return highest(s, call);
    case IntegerKind::kAdd:
      return add(s, call);
  }
}

}  // namespace scrimp
