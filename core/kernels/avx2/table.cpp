// The tables of this folder differ in the integer product.
#include "kernels/avx2/isa.h"

namespace scrimp {
namespace avx2 {
namespace {
#include "kernels/simd/table.inl"
}
}  // namespace avx2

constinit const Kernels kAvx2Kernels = avx2::table("avx2", avx2::int8_peak, avx2::linear_int8);
constinit const Kernels kAvxVnniKernels =
    avx2::table("avx2_vnni", avx2::avx_vnni::int8_peak, avx2::avx_vnni::linear_int8);
constinit const Kernels kAvx512VnniKernels =
    avx2::table("avx2_vnni", avx2::avx512_vnni::int8_peak, avx2::avx512_vnni::linear_int8);

}  // namespace scrimp
