// One operation on integers, prepared: weights in the order of the kernels, and the loops around these.
#pragma once

#include <cstdint>
#include <vector>

#include "integer.h"

namespace scrimp {

// A thread's memory.
struct IntegerWorker {
  std::vector<std::vector<int16_t>> slots;
  std::vector<int16_t> inputs;  // gathered for one call of the product
  std::vector<int32_t> sums;
};

// What an operation reads and writes of some pictures: `codes`, or `logits` where it makes these.
struct IntegerCall {
  const int16_t* first;
  const int16_t* second;  // of kAdd
  int64_t pictures;
  int16_t* codes;
  int32_t* logits;
};

struct IntegerStage {
  const IntegerOp* op;
  Image in, out;
  bool by_channel;                          // a kernel for each channel alone: depthwise, and the average
  int64_t inputs, outputs;                  // K and N of a group
  int64_t pairs, blocks;                    // ceil(K / 2) and ceil(N / 16)
  int64_t rows;                             // points of the pictures in one call of a kernel
  std::vector<int16_t> weight;              // [groups][blocks][pairs][16][2], or by channel [kernel][channels]
  std::vector<int32_t> multiplier, offset;  // [groups][blocks][16], or by channel [channels rounded up to 16]

  int64_t gathered() const { return by_channel ? 0 : rows * pairs * 2; }  // numbers of IntegerWorker::inputs
  int64_t summed() const { return rows * blocks * kIntegerChannels; }     // and of ::sums
};

IntegerStage prepare(const IntegerOp& op, const std::vector<Image>& buffers);
void run(const IntegerStage& stage, const IntegerCall& call, IntegerWorker& worker, const Kernels& kernels);

}  // namespace scrimp
