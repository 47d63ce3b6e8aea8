// What the machine can do at best: the ceilings that kernels are held against.
#pragma once

#include <cstdint>

#include "kernels/kernels.h"

namespace scrimp {

// GB/s of plain reading: `threads` threads each stream their part of `bytes` bytes, again and again until each has read
// at least `least`; one figure per repeat. The memory lies in huge pages where the system grants them, as the ceiling
// has to: small ones cost a third of the speed.
void read_bandwidth(const Kernels& kernels, int64_t bytes, int64_t least, int threads, int repeats, double* gb_per_s);

// G multiply-adds a second of int8 or float32 numbers in registers, all threads together; one figure per repeat.
void peak(int64_t (*kernel)(int64_t), int threads, int repeats, double* g_per_s);

}  // namespace scrimp
