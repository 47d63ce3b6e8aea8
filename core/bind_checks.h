// What the bind_*.cpp ask of their callers.
#pragma once

#include <stdexcept>
#include <string>

#include "dispatch.h"

namespace scrimp {

inline void require(bool condition, const char* message) {
  if (!condition) throw std::invalid_argument(message);
}

inline const Kernels& pick(const std::string& isa) {
  const Kernels* kernels = kernels_for(isa);
  if (!kernels) throw std::invalid_argument("this processor cannot run '" + isa + "'");
  return *kernels;
}

}  // namespace scrimp
