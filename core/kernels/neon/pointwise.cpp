#include <math.h>

#include "kernels/neon/isa.h"
#include "kernels/neon/vec.h"

namespace scrimp::neon {

#include "kernels/simd/exp.inl"

#include "kernels/simd/curves.inl"

#include "kernels/simd/pointwise.inl"

}  // namespace scrimp::neon
