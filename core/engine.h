// The executor of Programs.
//
// Every thread walks the list of operations. Work on tokens (norms, rotations, activation quantization) is split by
// tokens, products by tiles, attention by heads; a barrier stands only where the split changes. One token: thread 0
// does the token work, so a step costs about ten barriers a layer.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "kernels/kernels.h"
#include "pool.h"
#include "program.h"

namespace scrimp {

struct Settings {
  int64_t context;  // positions the key/value cache can hold
  int64_t chunk;    // largest number of tokens in one run
  int threads;
  bool float_arithmetic;     // decoded weights times float activations, float keys and values: the reference
  int64_t activation_block;  // inputs that share an activation scale
};

// A buffer's contents handed in before a run or copied out right after it was produced: [tokens][width] floats.
struct Tap {
  int buffer;
  float* data;
};

struct Step {
  std::span<const int32_t> tokens;
  int64_t start;    // position of the first token
  int first, last;  // operations [first, last)
  float* logits;    // where the output buffer goes: [logit_rows][width]
  bool all_logits;  // a row per token, or the last token's only (taps want all)
  std::vector<Tap> inputs, outputs;
};

class Engine {
 public:
  // The arena has a row of `arena_width` floats per token that holds all its buffers, so that threads working on
  // different tokens never touch the same memory, whatever buffers share a place. `places[output]` is not in the arena.
  Engine(std::vector<Op> ops, std::vector<Buffer> places, int64_t arena_width, int output, std::vector<Matrix> matrices,
         std::vector<Vector> vectors, std::vector<CacheShape> caches, Settings settings, const Kernels& kernels);

  void run(const Step& step);

  const std::vector<double>& seconds() const { return seconds_; }  // per operation, since reset_profile()
  int64_t runs() const { return runs_; }
  void reset_profile();
  const std::vector<Op>& ops() const { return ops_; }
  const Kernels& kernels() const { return kernels_; }
  const Settings& settings() const { return settings_; }

 private:
  struct Free {
    void operator()(void* memory) const;
  };
  template <typename T>
  using Memory = std::unique_ptr<T[], Free>;
  template <typename T>
  static Memory<T> allocate(int64_t count);  // page-aligned, not touched

  struct Cache {
    CacheShape shape;
    Memory<uint8_t> keys, values;  // f16; float32 with float arithmetic
  };
  // cos and sin of position * frequency, filled as far as positions were used.
  struct Rotation {
    std::vector<float> frequencies;
    std::vector<float> cos, sin;  // [positions][D/2]
    int64_t positions = 0;
  };
  struct Share {  // tiles [begin, end) of output `index` of a linear operation
    int index;
    int64_t begin, end;
  };

  struct View {  // rows [0, tokens) of a step, as one operation sees them
    int64_t first_row, rows, start;
  };

  void execute(const Op& op, size_t index, const Step& step, const View& view, int thread);
  void linear(const Op& op, size_t index, const Step& step, const View& view, int thread);
  void attention(const Op& op, size_t index, const View& view, int thread);
  void remember(const Cache& cache, const float* keys, const float* values, int64_t position);
  void copy_taps(const Op* op, const Step& step);
  float* row(int buffer, const Step& step, int64_t token) const;
  View view_of(size_t index, const Step& step) const;
  std::span<const Share> shares(size_t index, int thread) const;
  void extend_rotations(int64_t positions);
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
  std::vector<Cache> caches_;
  std::vector<Rotation> rotations_;
  std::vector<int> rotation_of_;                         // per operation
  std::vector<std::vector<std::vector<Share>>> shares_;  // [operation][thread]
  Memory<float> arena_;
  Activations activations_{};
  Memory<int8_t> quads_;
  Memory<float> scales_;
  Memory<int32_t> sums_;
  size_t scratch_bytes_;
  Memory<uint8_t> scratch_;
  std::unique_ptr<std::atomic<int64_t>[]> counters_;  // per operation: the next piece of work of this run
  std::vector<double> seconds_;
  int64_t runs_ = 0;
  Pool pool_;
};

}  // namespace scrimp
