// One step of the engine: segments, their two stages, and the pieces that threads claim. Set-up is in engine.cpp.
#include <algorithm>
#include <chrono>
#include <cstring>
#include <functional>
#include <numeric>

#include "engine.h"
#include "hadamard.h"
#include "packing.h"

namespace scrimp {
namespace {

using Clock = std::chrono::steady_clock;

constexpr int64_t kAttentionTokens = 16;  // query tokens claimed at a time

}  // namespace

// What the rows of the arena are, and how the queries of the step are cut.
void Engine::lay_out(const Step& step) {
  rows_.clear();
  strips_.clear();
  wanted_ = 0;
  int64_t end = 0;
  for (size_t i = 0; i < step.spans.size(); ++i) {
    const Span& span = step.spans[i];
    const auto first = static_cast<int64_t>(rows_.size());
    for (int64_t t = 0; t < span.tokens; ++t) {
      rows_.push_back({step.tokens[static_cast<size_t>(first + t)], static_cast<int32_t>(i), span.start + t});
    }
    for (int64_t t = 0; t < span.tokens; t += kAttentionTokens) {
      strips_.push_back({&span, first, t, std::min(t + kAttentionTokens, span.tokens), 0});
    }
    wanted_ += span.wanted;
    end = std::max(end, span.start + span.tokens);
  }
  // Each thread first takes the strips of tokens that it has worked on, the longest before the others.
  const auto blocks = static_cast<int64_t>(rows_.size() + kTokenBlock - 1) / kTokenBlock;
  const auto owner = [&](const Strip& strip) {
    const int64_t block = (strip.row + strip.begin) / kTokenBlock;
    int thread = 0;
    while (block >= share(blocks, thread + 1)) ++thread;
    return thread;
  };
  for (Strip& strip : strips_) strip.owner = owner(strip);
  std::sort(strips_.begin(), strips_.end(), [](const Strip& a, const Strip& b) {
    return a.owner != b.owner ? a.owner < b.owner : a.cost() > b.cost();
  });
  first_strips_.assign(static_cast<size_t>(settings_.threads) + 1, 0);
  for (const Strip& strip : strips_) ++first_strips_[static_cast<size_t>(strip.owner) + 1];
  std::partial_sum(first_strips_.begin(), first_strips_.end(), first_strips_.begin());
  extend_rotations(end);
}

void Engine::run(const Step& step) {
  const auto tokens = static_cast<int64_t>(step.tokens.size());
  lay_out(step);
  stages_.reset();
  for (const Tap& tap : step.inputs) {
    const int64_t width = places_[static_cast<size_t>(tap.buffer)].width;
    for (int64_t t = 0; t < tokens; ++t) {
      std::memcpy(row(tap.buffer, step, t), tap.data + t * width, static_cast<size_t>(width) * sizeof(float));
    }
  }
  // With taps, every operation is a segment of its own, and its outputs are copied before the next one begins.
  const auto ends = [&](int i) {
    const OpKind kind = ops_[static_cast<size_t>(i)].kind;
    return kind == OpKind::kLinear || kind == OpKind::kAttention || !step.outputs.empty() || i + 1 == step.last;
  };
  const auto body = [&](int thread) {
    if (step.first > last_attention_) gather_wanted(step, thread);
    for (int first = step.first, i = first; i < step.last; ++i) {
      if (!ends(i)) continue;
      run_segment({first, i + 1}, step, thread);
      first = i + 1;
      if (i == last_attention_) gather_wanted(step, thread);
      if (step.outputs.empty()) continue;
      pool_.barrier();
      if (thread == 0) copy_taps(ops_[static_cast<size_t>(i)], step);
      pool_.barrier();
    }
  };
  pool_.run(std::cref(body));  // a reference: the body itself would have to be allocated
  ++runs_;
}

// After the last attention nothing looks at other tokens: only those whose logits are wanted go on.
int64_t Engine::rows_of(size_t index, const Step& step) const {
  return static_cast<int>(index) > last_attention_ ? wanted_ : static_cast<int64_t>(step.tokens.size());
}

// They become the first rows. One thread does it, the others wait: it is a few rows, or nothing at all.
void Engine::gather_wanted(const Step& step, int thread) {
  const size_t stage = 2 * ops_.size();
  if (wanted_ == static_cast<int64_t>(step.tokens.size())) return;
  if (stages_.claim(stage, 0, 1) == 0) {
    const auto before = Clock::now();
    int64_t to = 0, end = 0;
    for (const Span& span : step.spans) {
      end += span.tokens;
      for (int64_t from = end - span.wanted; from < end; ++from, ++to) {
        if (from == to) continue;
        rows_[static_cast<size_t>(to)] = rows_[static_cast<size_t>(from)];
        std::memcpy(arena_.get() + to * arena_width_, arena_.get() + from * arena_width_,
                    static_cast<size_t>(arena_width_) * sizeof(float));
      }
    }
    const auto at = static_cast<size_t>(std::max(last_attention_, step.first));
    seconds_[static_cast<size_t>(thread)][at] += std::chrono::duration<double>(Clock::now() - before).count();
    stages_.finish(stage, 1, 1);
  }
  stages_.wait(stage, 1);
}

float* Engine::row(int buffer, const Step& step, int64_t token) const {
  const Buffer& place = places_[static_cast<size_t>(buffer)];
  if (buffer == output_) return step.logits + token * place.width;
  return arena_.get() + token * arena_width_ + place.offset;
}

void Engine::run_segment(const Segment& segment, const Step& step, int thread) {
  const auto last = static_cast<size_t>(segment.last - 1);
  const Op& end = ops_[last];
  const int64_t rows = rows_of(last, step);
  std::vector<double>& seconds = seconds_[static_cast<size_t>(thread)];
  const int64_t blocks = (rows + kTokenBlock - 1) / kTokenBlock;
  if (blocks == 0) return;
  for (int i = 0; i < settings_.threads; ++i) {
    const int queue = (thread + i) % settings_.threads;
    const int64_t first = share(blocks, queue), count = share(blocks, queue + 1) - first;
    for (int64_t block; (block = stages_.claim(2 * last, queue, count)) >= 0;) {
      auto before = Clock::now();
      for (auto at = static_cast<size_t>(segment.first); at <= last; ++at) {
        token_work(ops_[at], at, step, rows, first + block, thread);
        const auto now = Clock::now();
        seconds[at] += std::chrono::duration<double>(now - before).count();
        before = now;
      }
      stages_.finish(2 * last, 1, blocks);
    }
  }
  stages_.wait(2 * last, blocks);
  if (end.kind == OpKind::kLinear) linear(end, last, step, rows, thread);
  if (end.kind == OpKind::kAttention) attention(end, last, thread);
}

// The part of an operation that looks at one token at a time, for one block of tokens.
void Engine::token_work(const Op& op, size_t index, const Step& step, int64_t rows, int64_t block, int thread) {
  if (op.kind == OpKind::kLinear) return prepare_linear(op, step, rows, block);
  if (op.kind == OpKind::kAttention) return prepare_attention(op, step, rows, block, scratch(thread));
  const int64_t begin = block * kTokenBlock, end = std::min(begin + kTokenBlock, rows);
  for (int64_t t = begin; t < end; ++t) {
    float* out = row(op.outputs[0], step, t);
    const int64_t width = places_[static_cast<size_t>(op.outputs[0])].width;
    const auto in = [&](size_t i) { return row(op.inputs[i], step, t); };
    switch (op.kind) {
      case OpKind::kEmbed: {
        const auto what = static_cast<LookUp>(op.ints[0]);
        const Row& from = rows_[static_cast<size_t>(t)];
        const int64_t looked_up = what == LookUp::kToken ? from.token : what == LookUp::kPosition ? from.position : 0;
        decode_row(matrices_[static_cast<size_t>(op.weights[0])], looked_up, out);
        if (const float scale = op.floats[0]; scale != 1.0F)
          for (int64_t i = 0; i < width; ++i) out[i] *= scale;
        break;
      }
      case OpKind::kRmsNorm: {
        const float* weight = vectors_[static_cast<size_t>(op.vectors[0])].data;
        const int64_t stretch = width / op.ints[0];
        for (int64_t i = 0; i < width; i += stretch)
          kernels_.rms_norm(in(0) + i, weight, op.floats[1], op.floats[0], stretch, out + i);
        break;
      }
      case OpKind::kLayerNorm:
        kernels_.layer_norm(in(0), vectors_[static_cast<size_t>(op.vectors[0])].data,
                            vectors_[static_cast<size_t>(op.vectors[1])].data, op.floats[0], width, out);
        break;
      case OpKind::kSoftcap:
        kernels_.softcap(in(0), op.floats[0], width, out);
        break;
      case OpKind::kRope: {
        const Rotation& rotation = rotations_[static_cast<size_t>(rotation_of_[index])];
        const int64_t half = op.ints[1] / 2, at = rows_[static_cast<size_t>(t)].position * half;
        kernels_.rope(in(0), op.ints[0], op.ints[1], rotation.cos.data() + at, rotation.sin.data() + at, out);
        break;
      }
      case OpKind::kActivation:
        kernels_.activation(static_cast<Curve>(op.ints[0]), in(0), op.inputs.size() > 1 ? in(1) : nullptr, width, out);
        break;
      case OpKind::kAdd:
        kernels_.add(in(0), in(1), width, out);
        break;
      case OpKind::kHadamard:
        hadamard(op, index, in(0), width, out);
        break;
      case OpKind::kSelect: {
        float* picked = row(op.outputs[1], step, t);
        std::memcpy(out, in(0), static_cast<size_t>(width) * sizeof(float));
        for (size_t i = 0; i < op.ints.size(); ++i) {
          picked[i] = in(0)[op.ints[i]];
          out[op.ints[i]] = 0.0F;
        }
        break;
      }
      case OpKind::kLinear:
      case OpKind::kAttention:
        break;
    }
  }
}

void Engine::hadamard(const Op& op, size_t index, const float* x, int64_t width, float* y) const {
  const int64_t stretch = width / op.ints[1], m = static_cast<int64_t>(op.floats.size()) - stretch;
  const float* table = ops_[table_of_[index]].floats.data();
  for (int64_t at = 0; at < width; at += stretch) {
    rotate(x + at, table, table + stretch, stretch, m, op.ints[0] != 0, y + at);
  }
  if (!op.vectors.empty()) kernels_.add(y, vectors_[static_cast<size_t>(op.vectors[0])].data, width, y);
}

void Engine::attention(const Op& op, size_t index, int thread) {
  const PageLayout::Part& part = layout_.parts[static_cast<size_t>(op.ints[0])];
  const int64_t heads = op.ints[1], kv_heads = op.ints[2], head_dim = op.ints[3];
  const auto buffer = [&](int number) { return arena_.get() + places_[static_cast<size_t>(number)].offset; };
  const float* q = buffer(op.inputs[0]);
  float* out = buffer(op.outputs[0]);
  const uint8_t* page = pages_.get();
  // A piece is the query heads of one key head for a strip of tokens of one sequence. Where there are few of them, and
  // that takes less time, every query head is one.
  constexpr int64_t kReadCost = 2;  // of keys and values, in products of one query with them
  const auto rounds = [&](int64_t pieces) { return (pieces + settings_.threads - 1) / settings_.threads; };
  const auto strips = static_cast<int64_t>(strips_.size());
  const bool by_head =
      strips * kv_heads < 2 * settings_.threads &&
      rounds(strips * heads) * (kReadCost + 1) < rounds(strips * kv_heads) * (kReadCost + heads / kv_heads);
  const int64_t together = by_head ? 1 : heads / kv_heads, groups = heads / together;
  const int64_t total = strips * groups;
  const auto first = [&](int queue) { return first_strips_[static_cast<size_t>(queue)]; };
  const auto size = [&](int queue) { return (first(queue + 1) - first(queue)) * groups; };
  work(index, thread, total, size, [&](int queue, int64_t piece) {
    const Strip& strip = strips_[static_cast<size_t>(first(queue) + piece / groups)];
    const int64_t head = piece % groups * together;
    const Attention a{.heads = heads,
                      .kv_heads = kv_heads,
                      .head_dim = head_dim,
                      .start = strip.span->start,
                      .window = op.ints[4],
                      .causal = op.ints[5] != 0,
                      .softcap = op.floats[1],
                      .tokens = strip.span->tokens,
                      .scale = op.floats[0],
                      .q = q + strip.row * arena_width_,
                      .q_stride = arena_width_,
                      .cache = settings_.cache,
                      .row_bytes = part.row_bytes,
                      .row_scales = part.row_scales,
                      .cache_block_log2 = settings_.cache_block_log2,
                      .pages = strip.span->pages,
                      .page_bytes = layout_.bytes,
                      .keys = page + part.keys,
                      .values = page + part.values,
                      .key_scales = reinterpret_cast<const uint16_t*>(page + part.key_scales),
                      .value_scales = reinterpret_cast<const uint16_t*>(page + part.value_scales),
                      .out = out + strip.row * arena_width_,
                      .out_stride = arena_width_};
    kernels_.attention(a, head, head + together, strip.begin, strip.end, scratch(thread));
  });
}

void Engine::copy_taps(const Op& op, const Step& step) {
  for (const Tap& tap : step.outputs) {
    if (std::find(op.outputs.begin(), op.outputs.end(), tap.buffer) == op.outputs.end()) continue;
    const int64_t width = places_[static_cast<size_t>(tap.buffer)].width;
    for (int64_t t = 0; t < static_cast<int64_t>(step.tokens.size()); ++t) {
      std::memcpy(tap.data + t * width, row(tap.buffer, step, t), static_cast<size_t>(width) * sizeof(float));
    }
  }
}

}  // namespace scrimp
