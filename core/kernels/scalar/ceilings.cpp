// What a plain compiler makes of reading and multiplying.
#include "kernels/scalar/isa.h"

namespace scrimp::scalar {

uint64_t read(const uint8_t* from, int64_t bytes) {
  const uint64_t* words = reinterpret_cast<const uint64_t*>(from);
  uint64_t lanes[8] = {};
  for (int64_t i = 0; i < bytes / 8; i += 8) {
    for (int64_t lane = 0; lane < 8; ++lane) lanes[lane] ^= words[i + lane];
  }
  uint64_t all = 0;
  for (uint64_t lane : lanes) all ^= lane;
  return all;
}

int64_t int8_peak(int64_t rounds) {
  int32_t sums[8] = {};
  for (int64_t i = 0; i < rounds * kPeakOps / 8; ++i) {
    for (int n = 0; n < 8; ++n) sums[n] += static_cast<int8_t>(i) * (n - 4);
  }
  return sums[0] ^ sums[1] ^ sums[2] ^ sums[3] ^ sums[4] ^ sums[5] ^ sums[6] ^ sums[7];
}

int64_t f32_peak(int64_t rounds) {
  float sums[8] = {};
  for (int64_t i = 0; i < rounds * kPeakOps / 8; ++i) {
    for (int n = 0; n < 8; ++n) sums[n] += static_cast<float>(i & 7) * static_cast<float>(n);
  }
  float all = 0.0f;
  for (float sum : sums) all += sum;
  return static_cast<int64_t>(all * 1e-9f);
}

}  // namespace scrimp::scalar
