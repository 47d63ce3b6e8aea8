// A Program as the engine walks it: the compiled mirror of src/scrimp/program.py.
#pragma once

#include <cstdint>
#include <vector>

namespace scrimp {

// Numbered as KINDS in program.py, where the parameters of each operation are described.
enum class OpKind : int {
  kEmbed = 0,
  kRmsNorm = 1,
  kLinear = 2,
  kRope = 3,
  kAttention = 4,
  kActivation = 5,
  kAdd = 6,
  kHadamard = 7,
  kSelect = 8,
  kLayerNorm = 9,
  kSoftcap = 10
};

// What an embedding looks up.
enum class LookUp : int64_t { kToken = 0, kPosition = 1, kFirst = 2 };

struct Op {
  OpKind kind;
  std::vector<int> inputs, outputs;
  std::vector<int> weights;  // indices into the engine's matrices
  std::vector<int> vectors;  // indices into the engine's vectors, -1 for none
  std::vector<int64_t> ints;
  std::vector<float> floats;
};

// Where a buffer lies: `width` floats from `offset` in the arena row of each token.
struct Buffer {
  int64_t offset;
  int64_t width;
};

struct CacheShape {
  int64_t kv_heads, head_dim;
};

struct Vector {
  const float* data;
  int64_t size;
};

}  // namespace scrimp
