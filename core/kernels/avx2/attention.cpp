#include "kernels/avx2/isa.h"
#include "kernels/avx2/vec.h"

namespace scrimp::avx2 {

#include "kernels/simd/exp.inl"

#include "kernels/simd/curves.inl"

#include "kernels/simd/product.inl"

#include "kernels/simd/cache.inl"

#include "kernels/simd/attention.inl"

}  // namespace scrimp::avx2
