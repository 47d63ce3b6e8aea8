// What bind.cpp takes from bind_rounding.cpp.
#pragma once

#include <nanobind/nanobind.h>

namespace scrimp {

void bind_rounding(nanobind::module_& m);

}  // namespace scrimp
