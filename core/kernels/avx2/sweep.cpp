#include <string.h>

#include "kernels/avx2/isa.h"
#include "kernels/avx2/vec.h"

namespace scrimp::avx2 {

#include "kernels/simd/product.inl"

#include "kernels/simd/sweep.inl"

}  // namespace scrimp::avx2
