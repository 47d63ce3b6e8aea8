#include <string.h>

#include "kernels/neon/isa.h"
#include "kernels/neon/vec.h"

namespace scrimp::neon {

#include "kernels/simd/product.inl"

#include "kernels/simd/sweep.inl"

}  // namespace scrimp::neon
