// The executor of Programs.
//
// The list is cut into segments, each ending in a product or an attention. A segment has two stages: the work on tokens
// (norms, rotations, activation quantization, writing keys and values), cut by tokens; and the product or attention,
// cut by tiles or heads. Threads claim pieces of one stage after the other (stages.h).
//
// A step takes tokens of several sequences. Their keys and values lie in pages of one pool; who owns which page is not
// the engine's business (src/scrimp/engine/pages.py).
#pragma once

#include <chrono>
#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "kernels/kernels.h"
#include "pages.h"
#include "pool.h"
#include "program.h"
#include "stages.h"

namespace scrimp {

inline int64_t round_up(int64_t value, int64_t multiple) { return (value + multiple - 1) / multiple * multiple; }
constexpr int64_t kLeastBlock = 32;  // of activations with a scale: what every group of weights is a multiple of

inline int64_t tile_count(const Matrix& w) { return (w.rows + kTileRows - 1) / kTileRows; }
// Bytes one tile takes: what a thread's share of a product is measured in.
inline int64_t tile_bytes(const Matrix& w) {
  return (w.vectors[0] + (w.plane[1] ? w.vectors[1] : 0)) * kVectorBytes +
         w.groups * kTileRows * scale_bytes(w.scale_type) * (w.mins ? 2 : 1);
}

// Bytes and scales (two bytes each) of the keys or values of one head and position.
struct CacheRow {
  int64_t bytes, scales;
};
CacheRow cache_row(CacheType type, int64_t head_dim, int32_t block_log2);

// Where the keys and values of each layer lie in a page, in bytes; each begins on a line of 64.
struct PageLayout {
  struct Part {
    int64_t row_bytes, row_scales;  // of one head and position
    int64_t keys, values, key_scales, value_scales;
  };
  std::vector<Part> parts;
  int64_t bytes;
};
PageLayout page_layout(const std::vector<CacheShape>& caches, CacheType type, int32_t block_log2);

struct Settings {
  int64_t context;  // positions a sequence can have
  int64_t pages;    // of the pool, for all sequences together
  int64_t chunk;    // largest number of tokens in one run
  int threads;
  bool float_arithmetic;     // decoded weights times float activations: the reference
  int64_t activation_block;  // inputs that share an activation scale
  CacheType cache;           // of keys and values
  int32_t cache_block_log2;  // numbers that share a scale there
};

// A buffer's contents handed in before a run or copied out right after it was produced: [tokens][width] floats.
struct Tap {
  int buffer;
  float* data;
};

// Consecutive tokens of one sequence.
struct Span {
  int64_t start;  // position of the first token
  int64_t tokens;
  int64_t wanted;        // logits: of so many of them, the last ones
  const int32_t* pages;  // of the sequence, up to its last token
};

struct Step {
  std::span<const int32_t> tokens;  // of all spans, one after the other
  std::span<const Span> spans;
  int first, last;  // operations [first, last)
  float* logits;    // where the output buffer goes: [rows that are wanted][width] (taps want all)
  std::vector<Tap> inputs, outputs;
};

class Engine {
 public:
  // The arena has a row of `arena_width` floats per token that holds all its buffers, so that threads working on
  // different tokens never touch the same memory, whatever buffers share a place. `places[output]` is not in the arena.
  Engine(std::vector<Op> ops, std::vector<Buffer> places, int64_t arena_width, int output, std::vector<Matrix> matrices,
         std::vector<Vector> vectors, std::vector<CacheShape> caches, Settings settings, const Kernels& kernels);

  void run(const Step& step);
  void copy_page(int64_t from, int64_t to);

  // Busy seconds of each operation since reset_profile(), the mean over threads: their sum is a run less its waiting.
  std::vector<double> seconds() const;
  int64_t runs() const { return runs_; }
  void reset_profile();
  const std::vector<Op>& ops() const { return ops_; }
  const Kernels& kernels() const { return kernels_; }
  const Settings& settings() const { return settings_; }

 private:
  // cos and sin of position * frequency, filled as far as positions were used.
  struct Rotation {
    std::vector<float> frequencies;
    std::vector<float> cos, sin;  // [positions][D/2]
    int64_t positions = 0;
  };
  struct Piece {  // tiles [begin, end) of output `output` of a linear operation
    int output;
    int64_t begin, end;
  };
  struct Segment {  // operations [first, last); the last one ends it when it is a product or an attention
    int first, last;
  };
  struct Row {  // what a row of the arena is
    int32_t token;
    int32_t span;
    int64_t position;
  };
  struct Strip {  // tokens [begin, end) of a span whose first token is row `row`
    const Span* span;
    int64_t row, begin, end;
    int owner;  // the thread that takes it first

    int64_t cost() const { return (span->start + end) * (end - begin); }  // positions looked at, nearly
  };

  void deal_pieces(size_t index);
  void extend_rotations(int64_t positions);
  void lay_out(const Step& step);

  void run_segment(const Segment& segment, const Step& step, int thread);
  void token_work(const Op& op, size_t index, const Step& step, int64_t rows, int64_t block, int thread);
  void hadamard(const Op& op, size_t index, const float* x, int64_t width, float* y) const;
  void prepare_linear(const Op& op, const Step& step, int64_t rows, int64_t block);
  void prepare_attention(const Op& op, const Step& step, int64_t rows, int64_t block, uint8_t* turned);
  void linear(const Op& op, size_t index, const Step& step, int64_t rows, int thread);
  void attention(const Op& op, size_t index, int thread);
  void gather_wanted(const Step& step, int thread);
  // Claim and do pieces of operation `index` until its stage is over: `size(q)` pieces of each queue q, `total` in all.
  template <class Size, class Do>
  void work(size_t index, int thread, int64_t total, const Size& size, const Do& piece_of);
  // Of `count` things in a row, those before the ones that a thread takes first.
  int64_t share(int64_t count, int64_t thread) const {
    return (count * thread + settings_.threads - 1) / settings_.threads;
  }
  void copy_taps(const Op& op, const Step& step);

  Activations activations_of(const Op& op, int64_t rows) const;
  enum class Product { kFloats, kBf16, kInt8 };
  Product product_of(int weight) const;
  float* row(int buffer, const Step& step, int64_t token) const;
  int64_t rows_of(size_t index, const Step& step) const;
  uint8_t* scratch(int thread) const { return scratch_.get() + static_cast<size_t>(thread) * scratch_bytes_; }

  std::vector<Op> ops_;
  std::vector<Buffer> places_;
  int64_t arena_width_;
  int output_;
  int last_attention_ = -1;
  std::vector<Matrix> matrices_;
  std::vector<Vector> vectors_;
  Settings settings_;
  const Kernels& kernels_;
  std::vector<CacheShape> caches_;
  PageLayout layout_;
  Memory<uint8_t> pages_;
  std::vector<Rotation> rotations_;
  std::vector<int> rotation_of_;                         // per operation
  std::vector<size_t> table_of_;                         // per operation: the first one with the same floats
  std::vector<std::vector<std::vector<Piece>>> pieces_;  // [operation][thread], for one token
  std::vector<Row> rows_;                                // of this step
  std::vector<Strip> strips_;                            // of this step, by owner, the dearest first
  std::vector<int64_t> first_strips_;                    // of each owner, and the end of all
  int64_t wanted_ = 0;                                   // rows whose logits are wanted
  Memory<float> arena_;
  Memory<int8_t> quads_;
  Memory<float> scales_;
  Memory<int32_t> sums_;
  int64_t pair_stride_ = 0;  // from one token to the next
  Memory<uint32_t> pairs_;
  size_t scratch_bytes_;
  Memory<uint8_t> scratch_;
  Stages stages_;  // two per operation: 2i for the token work that it ends, 2i + 1 for itself; and one to gather rows
  std::vector<std::vector<double>> seconds_;  // [thread][operation]
  int64_t runs_ = 0;
  Pool pool_;
};

template <class Size, class Do>
void Engine::work(size_t index, int thread, int64_t total, const Size& size, const Do& piece_of) {
  const auto before = std::chrono::steady_clock::now();
  for (int i = 0; i < settings_.threads; ++i) {
    const int queue = (thread + i) % settings_.threads;
    const int64_t pieces = size(queue);
    int64_t done = 0;
    for (int64_t piece; (piece = stages_.claim(2 * index + 1, queue, pieces)) >= 0; ++done) piece_of(queue, piece);
    if (done > 0) stages_.finish(2 * index + 1, done, total);
  }
  seconds_[static_cast<size_t>(thread)][index] +=
      std::chrono::duration<double>(std::chrono::steady_clock::now() - before).count();
  stages_.wait(2 * index + 1, total);
}

}  // namespace scrimp
