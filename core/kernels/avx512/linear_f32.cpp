#include "kernels/avx512/isa.h"
#include "kernels/avx512/vec.h"

namespace scrimp::avx512 {

#include "kernels/simd/product.inl"

#include "kernels/simd/decode.inl"

#include "kernels/simd/linear_f32.inl"

}  // namespace scrimp::avx512
