// The coder's part of the module.
#pragma once

#include <nanobind/nanobind.h>

namespace scrimp {

void bind_coding(nanobind::module_& m);

}  // namespace scrimp
