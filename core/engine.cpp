#include "engine.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <utility>

#include "packing.h"

namespace scrimp {
namespace {

constexpr int64_t kPageSlack = 64;        // kernels may read so much past the end
constexpr int64_t kPieceBytes = 1 << 17;  // least bytes of weights claimed at a time for one token

// So many numbers of four bytes in an odd number of cache lines: rows, one per token, would else share few sets of the
// caches.
int64_t odd_lines(int64_t numbers) { return ((numbers + 15) / 16 | 1) * 16; }

}  // namespace

CacheRow cache_row(CacheType type, int64_t head_dim, int32_t block_log2) {
  if (type == CacheType::kF16 || type == CacheType::kF32) return {head_dim * (type == CacheType::kF32 ? 4 : 2), 0};
  const int64_t scales = (head_dim + (int64_t{1} << block_log2) - 1) >> block_log2;
  return {type == CacheType::kInt8 ? head_dim : (head_dim + 31) / 32 * 16, scales};
}

PageLayout page_layout(const std::vector<CacheShape>& caches, CacheType type, int32_t block_log2) {
  PageLayout layout{{}, 0};
  const auto place = [&](int64_t size) { return std::exchange(layout.bytes, layout.bytes + round_up(size, 64)); };
  for (const auto& [heads, head_dim] : caches) {
    const auto [bytes, scales] = cache_row(type, head_dim, block_log2);
    const int64_t codes = heads * kPagePositions * bytes, scale_bytes = heads * kPagePositions * scales * 2;
    const int64_t keys = place(codes), values = place(codes);
    const int64_t key_scales = place(scale_bytes), value_scales = place(scale_bytes);
    layout.parts.push_back({bytes, scales, keys, values, key_scales, value_scales});
  }
  return layout;
}

Engine::Engine(std::vector<Op> ops, std::vector<Buffer> places, int64_t arena_width, int output,
               std::vector<Matrix> matrices, std::vector<Vector> vectors, std::vector<CacheShape> caches,
               Settings settings, const Kernels& kernels)
    : ops_(std::move(ops)),
      places_(std::move(places)),
      arena_width_(odd_lines(arena_width)),
      output_(output),
      matrices_(std::move(matrices)),
      vectors_(std::move(vectors)),
      settings_(settings),
      kernels_(kernels),
      caches_(std::move(caches)),
      layout_(page_layout(caches_, settings.cache, settings.cache_block_log2)),
      pages_(allocate<uint8_t>(settings.pages * layout_.bytes + kPageSlack, true)),
      rotation_of_(ops_.size(), -1),
      table_of_(ops_.size(), 0),
      pieces_(ops_.size()),
      arena_(allocate<float>(arena_width_ * settings.chunk, true)),
      scratch_bytes_(static_cast<size_t>(round_up(static_cast<int64_t>(kernels.scratch_bytes), 4096))),
      scratch_(allocate<uint8_t>(static_cast<int64_t>(scratch_bytes_) * settings.threads)),
      stages_(2 * ops_.size() + 1, settings.threads),
      seconds_(static_cast<size_t>(settings.threads), std::vector<double>(ops_.size(), 0.0)),
      pool_(settings.threads) {
  std::memset(arena_.get(), 0, static_cast<size_t>(arena_width_ * settings.chunk) * sizeof(float));
  // A step allocates nothing: what grows has its room from the beginning, touched when it is needed.
  rows_.reserve(static_cast<size_t>(settings.chunk));
  strips_.reserve(static_cast<size_t>(settings.chunk));
  int64_t widest = 0;
  for (size_t i = 0; i < ops_.size(); ++i) {
    const Op& op = ops_[i];
    if (op.kind == OpKind::kAttention) last_attention_ = static_cast<int>(i);
    if (op.kind == OpKind::kRope) {
      const auto same = std::find_if(rotations_.begin(), rotations_.end(),
                                     [&](const Rotation& r) { return r.frequencies == op.floats; });
      rotation_of_[i] = static_cast<int>(same - rotations_.begin());
      if (same == rotations_.end()) {
        rotations_.push_back({op.floats, {}, {}, 0});
        rotations_.back().cos.reserve(op.floats.size() * static_cast<size_t>(settings.context));
        rotations_.back().sin.reserve(op.floats.size() * static_cast<size_t>(settings.context));
      }
    }
    if (op.kind == OpKind::kHadamard) {  // one table for all that rotate alike: it stays near the core
      const auto same = std::find_if(ops_.begin(), ops_.end(), [&](const Op& o) { return o.floats == op.floats; });
      table_of_[i] = static_cast<size_t>(same - ops_.begin());
    }
    if (op.kind != OpKind::kLinear) continue;
    widest = std::max(widest, matrices_[static_cast<size_t>(op.weights[0])].cols);
    deal_pieces(i);
  }
  const int64_t padded = round_up(widest + 64, 64);
  const int64_t blocks = (widest + kLeastBlock - 1) / kLeastBlock;
  quads_ = allocate<int8_t>(padded * settings.chunk, true);
  scales_ = allocate<float>(blocks * settings.chunk, true);
  sums_ = allocate<int32_t>(blocks * settings.chunk, true);
  if (kernels.bf16.linear == nullptr) return;
  pair_stride_ = odd_lines(widest / 2);
  pairs_ = allocate<uint32_t>(pair_stride_ * settings.chunk, true);
}

void Engine::copy_page(int64_t from, int64_t to) {
  std::memcpy(pages_.get() + to * layout_.bytes, pages_.get() + from * layout_.bytes,
              static_cast<size_t>(layout_.bytes));
}

// For one token: every thread gets one stretch of each product, of equal bytes, in pieces that others can take over. A
// claim waits for what is being read, so pieces are few: half of what is left, each time.
void Engine::deal_pieces(size_t index) {
  const Op& op = ops_[index];
  const int64_t threads = settings_.threads;
  int64_t total = 0, before = 0;  // bytes in all, and of the weights already dealt out
  for (int weight : op.weights) {
    const Matrix& w = matrices_[static_cast<size_t>(weight)];
    total += tile_count(w) * tile_bytes(w);
  }
  pieces_[index].resize(static_cast<size_t>(threads));
  for (size_t n = 0; n < op.weights.size(); ++n) {
    const Matrix& w = matrices_[static_cast<size_t>(op.weights[n])];
    const int64_t bytes = tile_bytes(w), count = tile_count(w), few = std::max<int64_t>(1, kPieceBytes / bytes);
    const auto border = [&](int64_t thread) {
      const int64_t at = total * thread / threads - before;
      return thread == threads ? count : std::clamp<int64_t>((at + bytes / 2) / bytes, 0, count);
    };
    for (int64_t thread = 0; thread < threads; ++thread) {
      const int64_t end = border(thread + 1);
      for (int64_t begin = border(thread), step; begin < end; begin += step) {
        step = threads == 1 ? end - begin : std::min(std::max((end - begin) / 2, few), end - begin);
        const Piece piece{static_cast<int>(n), begin, begin + step};
        pieces_[index][static_cast<size_t>(thread)].push_back(piece);
      }
    }
    before += count * bytes;
  }
}

std::vector<double> Engine::seconds() const {
  std::vector<double> mean(ops_.size(), 0.0);
  for (const auto& thread : seconds_) {
    for (size_t i = 0; i < mean.size(); ++i) mean[i] += thread[i] / static_cast<double>(seconds_.size());
  }
  return mean;
}

void Engine::reset_profile() {
  for (auto& thread : seconds_) std::fill(thread.begin(), thread.end(), 0.0);
  runs_ = 0;
}

void Engine::extend_rotations(int64_t positions) {
  for (Rotation& rotation : rotations_) {
    const auto half = static_cast<int64_t>(rotation.frequencies.size());
    if (positions <= rotation.positions) continue;
    const int64_t until = std::min(settings_.context, std::max(positions, 2 * rotation.positions));
    rotation.cos.resize(static_cast<size_t>(until * half));
    rotation.sin.resize(static_cast<size_t>(until * half));
    for (int64_t p = rotation.positions; p < until; ++p) {
      for (int64_t i = 0; i < half; ++i) {
        // the angle in float32, as the networks were trained
        const float angle = static_cast<float>(p) * rotation.frequencies[static_cast<size_t>(i)];
        rotation.cos[static_cast<size_t>(p * half + i)] = std::cos(angle);
        rotation.sin[static_cast<size_t>(p * half + i)] = std::sin(angle);
      }
    }
    rotation.positions = until;
  }
}

}  // namespace scrimp
