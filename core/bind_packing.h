// What bind.cpp takes from bind_packing.cpp.
#pragma once

#include <nanobind/nanobind.h>

namespace scrimp {

void bind_packing(nanobind::module_& m);

}  // namespace scrimp
