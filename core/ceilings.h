// What the machine can do at best: the ceilings that kernels are held against.
#pragma once

#include <cstdint>
#include <utility>
#include <vector>

#include "kernels/kernels.h"

namespace scrimp {

// GB/s of plain reading: `threads` threads each stream their part of `bytes` bytes, again and again until each has read
// at least `least`; one figure per repeat. The memory lies in huge pages where the system grants them, as the ceiling
// has to: small ones cost a third of the speed.
void read_bandwidth(const Kernels& kernels, int64_t bytes, int64_t least, int threads, int repeats, double* gb_per_s);

// GB/s of plain reading of what is in memory already: pairs of an address, a multiple of 64, and so many bytes, of
// which every thread reads its part. Some weights lie better than others, in pages of this system or of the one around
// it.
double read_arrays(const Kernels& kernels, const std::vector<std::pair<const uint8_t*, int64_t>>& arrays, int threads);

// G multiply-adds a second of int8 or float32 numbers in registers, all threads together; one figure per repeat.
void peak(int64_t (*kernel)(int64_t), int threads, int repeats, double* g_per_s);

}  // namespace scrimp
