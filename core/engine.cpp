#include "engine.h"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdlib>
#include <cstring>
#include <new>
#include <utility>

#include "packing.h"

namespace scrimp {
namespace {

int64_t round_up(int64_t value, int64_t multiple) { return (value + multiple - 1) / multiple * multiple; }

int64_t tiles(const Matrix& w) { return (w.rows + kTileRows - 1) / kTileRows; }

// Bytes one tile takes: what a thread's share of a product is measured in.
int64_t tile_bytes(const Matrix& w) {
  const int64_t scale_bytes = w.scale_type == ScaleType::kNone ? 0 : w.scale_type == ScaleType::kF32 ? 4 : 2;
  return (w.vectors[0] + (w.plane[1] ? w.vectors[1] : 0)) * kVectorBytes +
         w.groups * kTileRows * scale_bytes * (w.mins ? 2 : 1);
}

// The blocks of kTokenBlock tokens that a thread works on: token work and activation quantization split alike.
struct Range {
  int64_t begin, end;
};
Range split(int64_t count, int thread, int threads) {
  return {count * thread / threads, count * (thread + 1) / threads};
}
Range token_range(int64_t tokens, int thread, int threads) {
  const Range blocks = split((tokens + kTokenBlock - 1) / kTokenBlock, thread, threads);
  return {std::min(tokens, blocks.begin * kTokenBlock), std::min(tokens, blocks.end * kTokenBlock)};
}

bool is_float(const Matrix& w) { return w.element <= Element::kBf16; }

constexpr int64_t kPrefillTiles = 2;      // tiles claimed at a time when many tokens share them
constexpr int64_t kAttentionTokens = 16;  // query tokens claimed at a time

}  // namespace

void Engine::Free::operator()(void* memory) const { std::free(memory); }

template <typename T>
Engine::Memory<T> Engine::allocate(int64_t count) {
  // Large blocks come as untouched pages: a cache for a long context costs memory only as far as it is used.
  const size_t bytes = static_cast<size_t>(round_up(std::max<int64_t>(count, 1) * static_cast<int64_t>(sizeof(T)), 64));
  void* memory = nullptr;
  if (posix_memalign(&memory, 4096, bytes) != 0) throw std::bad_alloc();
  return Memory<T>(static_cast<T*>(memory));
}

Engine::Engine(std::vector<Op> ops, std::vector<Buffer> places, int64_t arena_width, int output,
               std::vector<Matrix> matrices, std::vector<Vector> vectors, std::vector<CacheShape> caches,
               Settings settings, const Kernels& kernels)
    : ops_(std::move(ops)),
      places_(std::move(places)),
      arena_width_(arena_width),
      output_(output),
      matrices_(std::move(matrices)),
      vectors_(std::move(vectors)),
      settings_(settings),
      kernels_(kernels),
      rotation_of_(ops_.size(), -1),
      shares_(ops_.size()),
      arena_(allocate<float>(arena_width * settings.chunk)),
      scratch_bytes_(static_cast<size_t>(round_up(static_cast<int64_t>(kernels.scratch_bytes), 4096))),
      scratch_(allocate<uint8_t>(static_cast<int64_t>(scratch_bytes_) * settings.threads)),
      counters_(new std::atomic<int64_t>[ops_.size()]),
      seconds_(ops_.size(), 0.0),
      pool_(settings.threads) {
  std::memset(arena_.get(), 0, static_cast<size_t>(arena_width * settings.chunk) * sizeof(float));
  for (const CacheShape& shape : caches) {
    const int64_t bytes = shape.kv_heads * shape.head_dim * settings.context * (settings.float_arithmetic ? 4 : 2);
    caches_.push_back({shape, allocate<uint8_t>(bytes), allocate<uint8_t>(bytes)});
  }
  int64_t widest = 0;
  for (size_t i = 0; i < ops_.size(); ++i) {
    const Op& op = ops_[i];
    if (op.kind == OpKind::kAttention) last_attention_ = static_cast<int>(i);
    if (op.kind == OpKind::kRope) {
      const auto same = std::find_if(rotations_.begin(), rotations_.end(),
                                     [&](const Rotation& r) { return r.frequencies == op.floats; });
      rotation_of_[i] = static_cast<int>(same - rotations_.begin());
      if (same == rotations_.end()) rotations_.push_back({op.floats, {}, {}, 0});
    }
    if (op.kind != OpKind::kLinear) continue;
    int64_t total = 0;
    for (int weight : op.weights) {
      const Matrix& w = matrices_[static_cast<size_t>(weight)];
      widest = std::max(widest, w.cols);
      total += tiles(w) * tile_bytes(w);
    }
    shares_[i].resize(static_cast<size_t>(settings.threads));
    int64_t before = 0;  // bytes of the weights already dealt out
    for (size_t n = 0; n < op.weights.size(); ++n) {
      const Matrix& w = matrices_[static_cast<size_t>(op.weights[n])];
      const int64_t bytes = tile_bytes(w), count = tiles(w);
      for (int thread = 0; thread < settings.threads; ++thread) {
        const auto border = [&](int t) {
          const int64_t at = total * t / settings.threads - before;
          return std::clamp<int64_t>((at + bytes / 2) / bytes, 0, count);
        };
        const int64_t begin = thread == 0 ? 0 : border(thread);
        const int64_t end = thread + 1 == settings.threads ? count : border(thread + 1);
        if (begin < end) shares_[i][static_cast<size_t>(thread)].push_back({static_cast<int>(n), begin, end});
      }
      before += count * bytes;
    }
  }
  const int64_t padded = round_up(widest + 64, 64);
  const int64_t blocks = (widest + settings.activation_block - 1) / settings.activation_block;
  quads_ = allocate<int8_t>(padded * settings.chunk);
  scales_ = allocate<float>(blocks * settings.chunk);
  sums_ = allocate<int32_t>(blocks * settings.chunk);
}

void Engine::run(const Step& step) {
  const auto tokens = static_cast<int64_t>(step.tokens.size());
  extend_rotations(step.start + tokens);
  for (size_t i = 0; i < ops_.size(); ++i) counters_[i].store(0, std::memory_order_relaxed);
  for (const Tap& tap : step.inputs) {
    const int64_t width = places_[static_cast<size_t>(tap.buffer)].width;
    for (int64_t t = 0; t < tokens; ++t) {
      std::memcpy(row(tap.buffer, step, t), tap.data + t * width, static_cast<size_t>(width) * sizeof(float));
    }
  }
  using Clock = std::chrono::steady_clock;
  pool_.run([&](int thread) {
    auto before = Clock::now();
    for (int i = step.first; i < step.last; ++i) {
      const auto index = static_cast<size_t>(i);
      const Op& op = ops_[index];
      execute(op, index, step, view_of(index, step), thread);
      if (!step.outputs.empty()) {
        pool_.barrier();
        if (thread == 0) copy_taps(&op, step);
        pool_.barrier();
      }
      if (thread == 0) {
        const auto now = Clock::now();
        seconds_[index] += std::chrono::duration<double>(now - before).count();
        before = now;
      }
    }
  });
  ++runs_;
}

void Engine::reset_profile() {
  std::fill(seconds_.begin(), seconds_.end(), 0.0);
  runs_ = 0;
}

// After the last attention nothing looks at other tokens: when only the last token's logits are wanted, only it goes
// on.
Engine::View Engine::view_of(size_t index, const Step& step) const {
  const auto tokens = static_cast<int64_t>(step.tokens.size());
  const bool only_last = !step.all_logits && static_cast<int>(index) > last_attention_;
  return only_last ? View{tokens - 1, 1, step.start} : View{0, tokens, step.start};
}

float* Engine::row(int buffer, const Step& step, int64_t token) const {
  const Buffer& place = places_[static_cast<size_t>(buffer)];
  if (buffer == output_) {
    const bool all = step.all_logits;
    return step.logits + (all ? token * place.width : 0);
  }
  return arena_.get() + token * arena_width_ + place.offset;
}

void Engine::execute(const Op& op, size_t index, const Step& step, const View& view, int thread) {
  // Both begin with token work, split as every operation before them, and end with work split otherwise.
  if (op.kind == OpKind::kLinear || op.kind == OpKind::kAttention) {
    if (op.kind == OpKind::kLinear) {
      linear(op, index, step, view, thread);
    } else {
      attention(op, index, view, thread);
    }
    pool_.barrier();
    return;
  }
  const Range range = token_range(view.rows, thread, pool_.threads());
  for (int64_t t = view.first_row + range.begin; t < view.first_row + range.end; ++t) {
    float* out = row(op.outputs[0], step, t);
    const int64_t width = places_[static_cast<size_t>(op.outputs[0])].width;
    const auto in = [&](size_t i) { return row(op.inputs[i], step, t); };
    switch (op.kind) {
      case OpKind::kEmbed:
        decode_row(matrices_[static_cast<size_t>(op.weights[0])], step.tokens[static_cast<size_t>(t)], out);
        break;
      case OpKind::kRmsNorm:
        kernels_.rms_norm(in(0), vectors_[static_cast<size_t>(op.vectors[0])].data, op.floats[0], width, out);
        break;
      case OpKind::kRope: {
        const Rotation& rotation = rotations_[static_cast<size_t>(rotation_of_[index])];
        const int64_t half = op.ints[1] / 2, at = (view.start + t) * half;
        if (out != in(0)) std::memcpy(out, in(0), static_cast<size_t>(width) * sizeof(float));
        kernels_.rope(out, op.ints[0], op.ints[1], rotation.cos.data() + at, rotation.sin.data() + at);
        break;
      }
      case OpKind::kSwiglu:
        kernels_.swiglu(in(0), in(1), width, out);
        break;
      case OpKind::kAdd:
        kernels_.add(in(0), in(1), width, out);
        break;
      case OpKind::kLinear:
      case OpKind::kAttention:
        break;
    }
  }
}

void Engine::linear(const Op& op, size_t index, const Step& step, const View& view, int thread) {
  const float* x = row(op.inputs[0], step, view.first_row);
  const int64_t cols = matrices_[static_cast<size_t>(op.weights[0])].cols;
  const auto in_floats = [&](const Matrix& w) { return settings_.float_arithmetic || is_float(w); };
  const bool any_int8 = std::any_of(op.weights.begin(), op.weights.end(),
                                    [&](int weight) { return !in_floats(matrices_[static_cast<size_t>(weight)]); });
  Activations a{};
  if (any_int8) {
    a = {view.rows, cols,         round_up(cols + 64, 64), std::min(settings_.activation_block, cols),
         0,         quads_.get(), scales_.get(),           sums_.get()};
    a.blocks = (cols + a.block - 1) / a.block;
    const Range blocks = split((view.rows + kTokenBlock - 1) / kTokenBlock, thread, pool_.threads());
    if (blocks.begin < blocks.end) kernels_.quantize(x, arena_width_, blocks.begin, blocks.end, a);
  }
  pool_.barrier();
  const auto product = [&](int output, int64_t begin, int64_t end) {
    const Matrix& w = matrices_[static_cast<size_t>(op.weights[static_cast<size_t>(output)])];
    const int buffer = op.outputs[static_cast<size_t>(output)];
    float* y = row(buffer, step, view.first_row);
    const int64_t y_stride = buffer == output_ ? places_[static_cast<size_t>(buffer)].width : arena_width_;
    if (in_floats(w)) {
      kernels_.linear_f32(w, x, arena_width_, view.rows, begin, end, y, y_stride, scratch(thread));
    } else {
      kernels_.linear_int8(w, a, begin, end, y, y_stride, scratch(thread));
    }
    if (op.vectors.empty()) return;
    const Vector& bias = vectors_[static_cast<size_t>(op.vectors[static_cast<size_t>(output)])];
    const int64_t from = begin * kTileRows, until = std::min(end * kTileRows, w.rows);
    for (int64_t t = 0; t < view.rows; ++t) {
      kernels_.add(y + t * y_stride + from, bias.data + from, until - from, y + t * y_stride + from);
    }
  };
  if (view.rows == 1) {
    for (const Share& share : shares(index, thread)) product(share.index, share.begin, share.end);
    return;
  }
  // Many tokens: threads claim pieces as they go, so a slow neighbour does not hold up the barrier.
  for (int64_t piece = counters_[index].fetch_add(1);; piece = counters_[index].fetch_add(1)) {
    int64_t left = piece;
    size_t output = 0;
    for (; output < op.weights.size(); ++output) {
      const int64_t pieces =
          (tiles(matrices_[static_cast<size_t>(op.weights[output])]) + kPrefillTiles - 1) / kPrefillTiles;
      if (left < pieces) break;
      left -= pieces;
    }
    if (output == op.weights.size()) return;
    const int64_t count = tiles(matrices_[static_cast<size_t>(op.weights[output])]);
    product(static_cast<int>(output), left * kPrefillTiles, std::min((left + 1) * kPrefillTiles, count));
  }
}

std::span<const Engine::Share> Engine::shares(size_t index, int thread) const {
  return shares_[index][static_cast<size_t>(thread)];
}

void Engine::attention(const Op& op, size_t index, const View& view, int thread) {
  const Cache& cache = caches_[static_cast<size_t>(op.ints[0])];
  const int64_t heads = op.ints[1], kv_heads = op.ints[2], head_dim = op.ints[3];
  const auto buffer = [&](int number) { return arena_.get() + places_[static_cast<size_t>(number)].offset; };
  const Range range = token_range(view.rows, thread, pool_.threads());
  for (int64_t t = range.begin; t < range.end; ++t) {
    const int64_t at = t * arena_width_;
    remember(cache, buffer(op.inputs[1]) + at, buffer(op.inputs[2]) + at, view.start + t);
  }
  pool_.barrier();
  const Attention a{heads,
                    kv_heads,
                    head_dim,
                    view.start,
                    view.rows,
                    settings_.context,
                    op.floats[0],
                    buffer(op.inputs[0]),
                    arena_width_,
                    cache.keys.get(),
                    cache.values.get(),
                    settings_.float_arithmetic,
                    buffer(op.outputs[0]),
                    arena_width_};
  if (view.rows == 1) {
    const Range mine = split(heads, thread, pool_.threads());
    if (mine.begin < mine.end) kernels_.attention(a, mine.begin, mine.end, 0, 1, scratch(thread));
    return;
  }
  // A piece is the query heads of one key head for a few tokens; late tokens see more positions, so they go first.
  const int64_t group = heads / kv_heads, strips = (view.rows + kAttentionTokens - 1) / kAttentionTokens;
  for (int64_t piece = counters_[index].fetch_add(1); piece < strips * kv_heads;
       piece = counters_[index].fetch_add(1)) {
    const int64_t strip = strips - 1 - piece / kv_heads, head = piece % kv_heads;
    const int64_t end = std::min((strip + 1) * kAttentionTokens, view.rows);
    kernels_.attention(a, head * group, (head + 1) * group, strip * kAttentionTokens, end, scratch(thread));
  }
}

// Put the keys and values of one token, [kv_heads][head_dim] each, into the cache.
void Engine::remember(const Cache& cache, const float* keys, const float* values, int64_t position) {
  const auto [kv_heads, head_dim] = cache.shape;
  for (int64_t h = 0; h < kv_heads; ++h) {
    const int64_t at = (h * settings_.context + position) * head_dim;
    for (const auto& [from, to] : {std::pair{keys, cache.keys.get()}, std::pair{values, cache.values.get()}}) {
      if (settings_.float_arithmetic) {
        std::memcpy(reinterpret_cast<float*>(to) + at, from + h * head_dim,
                    static_cast<size_t>(head_dim) * sizeof(float));
      } else {
        kernels_.to_f16(from + h * head_dim, head_dim, reinterpret_cast<uint16_t*>(to) + at);
      }
    }
  }
}

void Engine::copy_taps(const Op* op, const Step& step) {
  for (const Tap& tap : step.outputs) {
    if (std::find(op->outputs.begin(), op->outputs.end(), tap.buffer) == op->outputs.end()) continue;
    const int64_t width = places_[static_cast<size_t>(tap.buffer)].width;
    for (int64_t t = 0; t < static_cast<int64_t>(step.tokens.size()); ++t) {
      std::memcpy(tap.data + t * width, row(tap.buffer, step, t), static_cast<size_t>(width) * sizeof(float));
    }
  }
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
