#include <math.h>
#include <string.h>

#include "kernels/neon/isa.h"
#include "kernels/neon/vec.h"

namespace scrimp::neon {

#include "kernels/simd/product.inl"

#include "kernels/simd/moments.inl"

}  // namespace scrimp::neon
