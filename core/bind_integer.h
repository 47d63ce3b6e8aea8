// What bind.cpp takes from bind_integer.cpp.
#pragma once

#include <nanobind/nanobind.h>

namespace scrimp {

void bind_integer(nanobind::module_& m);

}  // namespace scrimp
