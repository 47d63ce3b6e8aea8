#include "kernels/avx512/isa.h"
#include "kernels/avx512/vec.h"

namespace scrimp::avx512 {

#include "kernels/simd/exp.inl"

#include "kernels/simd/curves.inl"

#include "kernels/simd/product.inl"

#include "kernels/simd/cache.inl"

#include "kernels/simd/attention.inl"

}  // namespace scrimp::avx512
