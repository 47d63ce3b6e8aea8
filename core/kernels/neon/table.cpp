// The tables of this folder differ in the integer product.
#include "kernels/neon/isa.h"

namespace scrimp {
namespace neon {
namespace {
#include "kernels/simd/table.inl"
}
}  // namespace neon

constinit const Kernels kNeonKernels = neon::table("neon", nullptr, neon::linear_int8);
constinit const Kernels kNeonDotprodKernels = neon::table("neon_dotprod", nullptr, neon::dotprod::linear_int8);
constinit const Kernels kNeonI8mmKernels = neon::table("neon_i8mm", nullptr, neon::i8mm::linear_int8);

}  // namespace scrimp
