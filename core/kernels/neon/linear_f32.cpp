#include "kernels/neon/isa.h"
#include "kernels/neon/vec.h"

namespace scrimp::neon {

#include "kernels/simd/product.inl"

#include "kernels/simd/decode.inl"

#include "kernels/simd/linear_f32.inl"

}  // namespace scrimp::neon
