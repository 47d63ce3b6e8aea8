#include <math.h>

#include "kernels/avx512/isa.h"
#include "kernels/avx512/vec.h"

namespace scrimp::avx512 {

#include "kernels/simd/exp.inl"

#include "kernels/simd/curves.inl"

#include "kernels/simd/pointwise.inl"

}  // namespace scrimp::avx512
