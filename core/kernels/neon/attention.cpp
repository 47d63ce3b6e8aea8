#include "kernels/neon/isa.h"
#include "kernels/neon/vec.h"

namespace scrimp::neon {

#include "kernels/simd/exp.inl"

#include "kernels/simd/curves.inl"

#include "kernels/simd/product.inl"

#include "kernels/simd/cache.inl"

#include "kernels/simd/attention.inl"

}  // namespace scrimp::neon
