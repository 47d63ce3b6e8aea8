// Products of integers, the obvious way.
#include "kernels/scalar/isa.h"

namespace scrimp::scalar {

// Cost: 2 bytes of weight and some four instructions per weight and row.
void integer_product(const IntegerProduct& p) {
  for (int64_t r = 0; r < p.rows; ++r) {
    const int16_t* inputs = p.inputs + r * p.pairs * 2;
    for (int64_t block = 0; block < p.blocks; ++block) {
      const int16_t* weight = p.weight + block * p.pairs * kIntegerChannels * 2;
      uint32_t sums[kIntegerChannels] = {};
      for (int64_t k = 0; k < p.pairs; ++k)
        for (int64_t n = 0; n < kIntegerChannels; ++n)
          for (int64_t i = 0; i < 2; ++i)
            sums[n] += static_cast<uint32_t>(inputs[2 * k + i] * weight[(k * kIntegerChannels + n) * 2 + i]);
      for (int64_t n = 0; n < kIntegerChannels; ++n)
        p.sums[(r * p.blocks + block) * kIntegerChannels + n] = static_cast<int32_t>(sums[n]);
    }
  }
}

void requantize(int32_t* sums, int64_t rows, const Requantizer& by) {
  for (int64_t r = 0; r < rows; ++r) {
    for (int64_t n = 0; n < by.channels; ++n) {
      int32_t& sum = sums[r * by.channels + n];
      const uint32_t product = static_cast<uint32_t>(sum >> by.pre) * static_cast<uint32_t>(by.multiplier[n]);
      const int32_t code = static_cast<int32_t>(product + static_cast<uint32_t>(by.offset[n])) >> by.shift;
      sum = code < by.low ? by.low : code > by.high ? by.high : code;
    }
  }
}

}  // namespace scrimp::scalar
