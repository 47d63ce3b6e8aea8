#include "kernels/scalar/isa.h"

namespace scrimp {
namespace scalar {
namespace {
#include "kernels/simd/table.inl"
}
}  // namespace scalar

constinit const Kernels kScalarKernels = scalar::table("scalar", scalar::int8_peak, scalar::linear_int8);

}  // namespace scrimp
