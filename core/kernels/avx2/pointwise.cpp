#include <math.h>

#include "kernels/avx2/isa.h"
#include "kernels/avx2/vec.h"

namespace scrimp::avx2 {

#include "kernels/simd/exp.inl"

#include "kernels/simd/curves.inl"

#include "kernels/simd/pointwise.inl"

}  // namespace scrimp::avx2
