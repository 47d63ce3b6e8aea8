// Products of a step: activations as int8, and the pieces that threads multiply.
#include <algorithm>
#include <utility>

#include "engine.h"

namespace scrimp {
namespace {

constexpr int64_t kPrefillTiles[2] = {2, 8};  // tiles claimed at a time when many tokens share them, least and most
constexpr int64_t kPartTokens = 96;           // least tokens that a thread unpacks all weights for

}  // namespace

Engine::Product Engine::product_of(int weight) const {
  const Matrix& w = matrices_[static_cast<size_t>(weight)];
  if (settings_.float_arithmetic) return Product::kFloats;
  if (w.element == Element::kBf16 && kernels_.bf16.linear != nullptr && w.scales == nullptr && w.cols % 2 == 0)
    return Product::kBf16;
  return w.element <= Element::kBf16 ? Product::kFloats : Product::kInt8;
}

Activations Engine::activations_of(const Op& op, int64_t rows) const {
  const int64_t cols = matrices_[static_cast<size_t>(op.weights[0])].cols;
  const float fixed = op.floats.empty() ? 0.0F : op.floats[0];
  const bool by_token = fixed > 0.0F || (!op.ints.empty() && op.ints[0] != 0);
  const int64_t shared = by_token ? cols : std::min(settings_.activation_block, cols);
  // Products sum what a block of activations and a group of weights have in common before they scale it, so a block
  // lies in one group, and in one panel of the many-token products.
  const bool whole = (shared & (shared - 1)) == 0 && kPanelCols % shared == 0 &&
                     std::all_of(op.weights.begin(), op.weights.end(), [&](int weight) {
                       const Matrix& w = matrices_[static_cast<size_t>(weight)];
                       return product_of(weight) != Product::kInt8 || w.group >= cols || w.group % shared == 0;
                     });
  const int64_t block = shared == cols || whole ? shared : kLeastBlock;
  return {.tokens = rows,
          .cols = cols,
          .cols_padded = round_up(cols + 64, 64),
          .block = block,
          .blocks = (cols + block - 1) / block,
          .scale_block = shared,
          .fixed_scale = fixed,
          .quads = quads_.get(),
          .scales = scales_.get(),
          .sums = sums_.get()};
}

void Engine::prepare_linear(const Op& op, const Step& step, int64_t rows, int64_t block) {
  const auto any = [&](Product product) {
    return std::any_of(op.weights.begin(), op.weights.end(), [&](int weight) { return product_of(weight) == product; });
  };
  const float* x = row(op.inputs[0], step, 0);
  if (any(Product::kInt8)) kernels_.quantize(x, arena_width_, block, block + 1, activations_of(op, rows));
  if (!any(Product::kBf16)) return;
  const int64_t cols = matrices_[static_cast<size_t>(op.weights[0])].cols;
  for (int64_t t = block * kTokenBlock; t < std::min(rows, (block + 1) * kTokenBlock); ++t) {
    kernels_.bf16.round(x + t * arena_width_, cols, pairs_.get() + t * pair_stride_);
  }
}

void Engine::linear(const Op& op, size_t index, const Step& step, int64_t rows, int thread) {
  const Activations all = activations_of(op, rows);
  int64_t kept = 0, part = -1;  // scratch is this thread's, and only these products write to it meanwhile
  Activations a = all;
  a.kept = &kept;
  int64_t first = 0;
  // The tokens of a part, from now on: whole blocks.
  const auto take = [&](int64_t of, int64_t parts) {
    if (of == part) return;
    const int64_t blocks = (rows + kTokenBlock - 1) / kTokenBlock;
    const auto begin = [&](int64_t p) { return (blocks * p + parts - 1) / parts * kTokenBlock; };
    first = begin(of);
    a.tokens = std::min(begin(of + 1), rows) - first;
    a.quads = all.quads + first * all.cols_padded;
    a.scales = all.scales + first * all.blocks;
    a.sums = all.sums + first * all.blocks;
    part = of, kept = 0;
  };
  const auto multiply = [&](const Piece& piece) {
    const auto output = static_cast<size_t>(piece.output);
    const Matrix& w = matrices_[static_cast<size_t>(op.weights[output])];
    float* y = row(op.outputs[output], step, first);
    const int64_t y_stride = op.outputs[output] == output_ ? w.rows : arena_width_;
    switch (product_of(op.weights[output])) {
      case Product::kInt8:
        kernels_.linear_int8(w, a, piece.begin, piece.end, y, y_stride, scratch(thread));
        break;
      case Product::kBf16: {
        const uint32_t* x = pairs_.get() + first * pair_stride_;
        kernels_.bf16.linear(w, x, pair_stride_, a.tokens, piece.begin, piece.end, y, y_stride);
        break;
      }
      case Product::kFloats: {
        const float* x = row(op.inputs[0], step, first);
        kernels_.linear_f32(w, x, arena_width_, a.tokens, piece.begin, piece.end, y, y_stride, scratch(thread));
        kept = 0;
      }
    }
    if (op.vectors.empty() || op.vectors[output] < 0) return;
    const Vector& bias = vectors_[static_cast<size_t>(op.vectors[output])];
    const int64_t from = piece.begin * kTileRows, until = std::min(piece.end * kTileRows, w.rows);
    for (int64_t t = 0; t < a.tokens; ++t) {
      kernels_.add(y + t * y_stride + from, bias.data + from, until - from, y + t * y_stride + from);
    }
  };
  if (rows == 1) {
    const auto& queues = pieces_[index];
    int64_t total = 0;
    for (const auto& queue : queues) total += static_cast<int64_t>(queue.size());
    const auto size = [&](int q) { return static_cast<int64_t>(queues[static_cast<size_t>(q)].size()); };
    work(index, thread, total, size,
         [&](int q, int64_t piece) { multiply(queues[static_cast<size_t>(q)][static_cast<size_t>(piece)]); });
    return;
  }
  // Tokens are cut into parts where weights that every part reads are fewer bytes than the activations, which would go
  // from one thread to another: then a thread keeps to its own, and what it makes of them it reads again.
  // Inside a part, pieces that follow each other go to one thread, which asks for the weights of the next while it
  // multiplies; several tiles in a piece share what is known of the activations, and enough pieces remain to balance
  // the threads.
  const int64_t threads = settings_.threads;
  int64_t width = all.cols, stored = 0;
  for (const int weight : op.weights) {
    const Matrix& w = matrices_[static_cast<size_t>(weight)];
    width += w.rows;
    stored += tile_bytes(w) * tile_count(w);
  }
  int64_t parts = std::clamp<int64_t>(rows / kPartTokens, 1, threads);
  if (stored * parts > rows * width * static_cast<int64_t>(sizeof(float))) parts = 1;
  const auto part_of = [&](int64_t q) { return q * parts / threads; };
  const auto tiles_of = [&](size_t output) {
    const int64_t count = tile_count(matrices_[static_cast<size_t>(op.weights[output])]);
    return std::clamp(count * parts / (8 * threads) / 2 * 2, kPrefillTiles[0], kPrefillTiles[1]);
  };
  const auto pieces_of = [&](size_t output) {
    const int64_t count = tile_count(matrices_[static_cast<size_t>(op.weights[output])]);
    return (count + tiles_of(output) - 1) / tiles_of(output);
  };
  int64_t pieces = 0;
  for (size_t output = 0; output < op.weights.size(); ++output) pieces += pieces_of(output);
  // The pieces of a part that come before those of a queue.
  const auto before = [&](int64_t q) {
    const int64_t of = part_of(q);
    const int64_t begin = (of * threads + parts - 1) / parts, end = ((of + 1) * threads + parts - 1) / parts;
    return std::pair{pieces * (q - begin) / (end - begin), pieces * (q + 1 - begin) / (end - begin)};
  };
  const auto size = [&](int q) { return before(q).second - before(q).first; };
  work(index, thread, parts * pieces, size, [&](int q, int64_t piece) {
    take(part_of(q), parts);
    piece += before(q).first;
    size_t output = 0;
    for (; piece >= pieces_of(output); ++output) piece -= pieces_of(output);
    const int64_t tiles = tiles_of(output), count = tile_count(matrices_[static_cast<size_t>(op.weights[output])]);
    multiply({static_cast<int>(output), piece * tiles, std::min((piece + 1) * tiles, count)});
  });
}

}  // namespace scrimp
