// Which kernels this processor can run, chosen once.
#pragma once

#include <string>
#include <vector>

#include "kernels/kernels.h"

namespace scrimp {

// The names of the instruction sets this processor *and* its operating system support, best last.
const std::vector<std::string>& available_isas();

// The table of an instruction set by name; null when it is unknown or this machine cannot run it.
const Kernels* kernels_for(const std::string& isa);

// What the processor reports, for `scrimp doctor`: "avx2", "avx512_vnni", …
std::vector<std::string> cpu_features();

}  // namespace scrimp
