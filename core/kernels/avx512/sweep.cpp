#include <string.h>

#include "kernels/avx512/isa.h"
#include "kernels/avx512/vec.h"

namespace scrimp::avx512 {

#include "kernels/simd/product.inl"

#include "kernels/simd/sweep.inl"

}  // namespace scrimp::avx512
