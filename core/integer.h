// A network in integers as the engine walks it: the compiled mirror of src/scrimp/integer/program.py.
//
// Activations lie as int16 numbers in (height, width, channels) of each picture; a thread takes some pictures at a time
// through all operations. What comes out is the same for every instruction set and number of threads.
#pragma once

#include <cstdint>
#include <mutex>
#include <vector>

#include "kernels/kernels.h"
#include "pool.h"

namespace scrimp {

struct Image {
  int64_t height, width, channels;
  int64_t points() const { return height * width; }
  int64_t size() const { return points() * channels; }
};

enum class IntegerKind : int { kProduct = 0, kMaxPool = 1, kAvgPool = 2, kAdd = 3 };

// All sizes were checked by whoever made it.
struct IntegerOp {
  IntegerKind kind;
  std::vector<int> inputs;  // buffers: two of kAdd, else one
  int output;
  int64_t rows, columns;  // of the kernel
  int64_t stride, padding, groups;
  int32_t pre, shift, low, high;
  std::vector<int8_t> weight;               // kProduct: [N][rows][columns][channels / groups]
  std::vector<int32_t> multiplier, offset;  // [N]; of kAdd [2] and [1]
};

struct IntegerStage;   // an operation, prepared
struct IntegerWorker;  // a thread's memory

class IntegerEngine {
 public:
  // buffers[0] is the picture, whose bytes become (byte - zero) >> pixel_shift; the last operation makes the logits.
  IntegerEngine(std::vector<IntegerOp> ops, std::vector<Image> buffers, int32_t zero, int32_t pixel_shift, int threads,
                const Kernels& kernels);
  ~IntegerEngine();

  // pictures [count][size of buffers[0]] -> logits [count][size of the last output]. Calls wait for each other.
  void run(const uint8_t* pictures, int64_t count, int32_t* logits);

  const Image& picture() const { return buffers_[0]; }
  int64_t classes() const { return buffers_[static_cast<size_t>(ops_.back().output)].size(); }
  const Kernels& kernels() const { return kernels_; }

 private:
  void place_buffers();
  void walk(IntegerWorker& worker, const uint8_t* pictures, int64_t count, int32_t* logits) const;

  const Kernels& kernels_;
  std::vector<IntegerOp> ops_;
  std::vector<Image> buffers_;
  const int32_t zero_, pixel_shift_;
  std::vector<int> slots_;             // of each buffer: two that are never alive together may share one
  std::vector<int64_t> slot_numbers_;  // of one picture
  int64_t batch_;                      // pictures that a thread takes through the network together
  std::vector<IntegerStage> stages_;
  std::vector<IntegerWorker> workers_;
  Pool pool_;
  std::mutex busy_;
};

}  // namespace scrimp
