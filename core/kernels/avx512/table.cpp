#include "kernels/avx512/isa.h"

namespace scrimp {
namespace avx512 {
namespace {
#include "kernels/simd/table.inl"
}
}  // namespace avx512

constinit const Kernels kAvx512Kernels = avx512::table("avx512", avx512::int8_peak, avx512::linear_int8);

}  // namespace scrimp
