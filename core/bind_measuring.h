// What bind.cpp takes from bind_measuring.cpp.
#pragma once

#include <nanobind/nanobind.h>

namespace scrimp {

void bind_measuring(nanobind::module_& m);

}  // namespace scrimp
