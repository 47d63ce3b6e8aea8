// What Python hands over as operations, checked before the engine reads it without looking.
#pragma once

#include <cfloat>
#include <vector>

#include "bind_checks.h"
#include "engine.h"
#include "kernels/kernels.h"
#include "program.h"

namespace scrimp {

// The numbers that an operation brings, where the engine reads them without looking.
inline void check_numbers(const Op& op, const std::vector<Matrix>& matrices, const std::vector<Vector>& vectors,
                          const std::vector<Buffer>& buffers, int64_t context) {
  const auto brings = [&](size_t ints, size_t floats) {
    require(op.ints.size() == ints && op.floats.size() == floats, "an operation lacks numbers, or has too many");
  };
  const int64_t width = op.outputs.empty() ? 0 : buffers.at(static_cast<size_t>(op.outputs[0])).width;
  const auto vector = [&](size_t i, int64_t size) {
    const int index = op.vectors.at(i);
    require(index >= 0 && vectors.at(static_cast<size_t>(index)).size == size, "a vector has another size");
  };
  switch (op.kind) {
    case OpKind::kEmbed:
      brings(1, 1);
      require(op.ints[0] >= 0 && op.ints[0] <= 2, "nothing is looked up so");
      if (op.ints[0] == static_cast<int64_t>(LookUp::kPosition))
        require(matrices.at(static_cast<size_t>(op.weights.at(0))).rows >= context, "positions exceed their table");
      break;
    case OpKind::kRmsNorm:
      brings(1, 2);
      require(op.ints[0] > 0 && width % op.ints[0] == 0, "a norm cuts its width into equals");
      vector(0, width / op.ints[0]);
      break;
    case OpKind::kLayerNorm:
      brings(0, 1);
      vector(0, width);
      vector(1, width);
      break;
    case OpKind::kActivation:
      brings(1, 0);
      require(op.ints[0] >= 0 && op.ints[0] <= 3 && !op.inputs.empty(), "no such activation");
      break;
    case OpKind::kSoftcap:
      brings(0, 1);
      require(op.floats[0] > 0.0F, "a cap is positive");
      break;
    case OpKind::kAttention:
      brings(6, 2);
      require(op.ints[4] >= 0 && (op.ints[4] == 0 || op.ints[5] != 0), "a window looks back");
      require(op.floats[1] >= 0.0F, "a cap is positive");
      break;
    default:
      break;
  }
}

inline void check_activations(const Op& op, int64_t block) {
  require(block >= kLeastBlock && block % kLeastBlock == 0, "a block of activations is a multiple of 32 inputs");
  for (float scale : op.floats)
    require(scale >= FLT_MIN && scale <= FLT_MAX / 127.0F, "an activation scale is no positive number");
}

// Rotations and selections carry their tables with them.
inline void check_side_op(const Op& op, const std::vector<Buffer>& buffers) {
  if (op.kind != OpKind::kHadamard && op.kind != OpKind::kSelect) return;
  const int64_t width = buffers.at(static_cast<size_t>(op.inputs.at(0))).width;
  require(buffers.at(static_cast<size_t>(op.outputs.at(0))).width == width, "a rotation keeps the width");
  if (op.kind == OpKind::kSelect) {
    require(buffers.at(static_cast<size_t>(op.outputs.at(1))).width == static_cast<int64_t>(op.ints.size()),
            "a number for every channel that is picked");
    for (int64_t channel : op.ints) require(channel >= 0 && channel < width, "a channel is out of range");
    return;
  }
  require(op.ints.size() == 2 && op.ints[1] > 0 && width % op.ints[1] == 0, "a rotation cuts its width into equals");
  const int64_t stretch = width / op.ints[1], odd = stretch / (stretch & -stretch);
  require(static_cast<int64_t>(op.floats.size()) == stretch + odd, "a rotation needs its signs and its mix");
}

}  // namespace scrimp
