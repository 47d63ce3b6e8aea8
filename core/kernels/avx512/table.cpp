// The tables of this folder differ in bf16.
#include "kernels/avx512/isa.h"

namespace scrimp {
namespace avx512 {
namespace {
#include "kernels/simd/table.inl"
}
}  // namespace avx512

constinit const Kernels kAvx512Kernels = avx512::table("avx512", avx512::int8_peak, avx512::linear_int8);
constinit const Kernels kAvx512Bf16Kernels =
    avx512::table("avx512_bf16", avx512::int8_peak, avx512::linear_int8,
                  {avx512::bf16::round, avx512::bf16::linear, avx512::bf16::peak});

}  // namespace scrimp
