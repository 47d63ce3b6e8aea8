// The table of this folder. Constant-initialised: nothing here runs before main, so no instruction of this set either.
#include "kernels/scalar/isa.h"

namespace scrimp {

constinit const Kernels kScalarKernels = {
    .isa = "scalar",
    .read = scalar::read,
    .int8_peak = scalar::int8_peak,
    .f32_peak = scalar::f32_peak,
    .quantize = scalar::quantize,
    .linear_int8 = scalar::linear_int8,
    .linear_f32 = scalar::linear_f32,
    .scratch_bytes = scalar::kScratchBytes,
    .rms_norm = scalar::rms_norm,
    .layer_norm = scalar::layer_norm,
    .activation = scalar::activation,
    .softcap = scalar::softcap,
    .add = scalar::add,
    .rope = scalar::rope,
    .to_f16 = scalar::to_f16,
    .to_codes = scalar::to_codes,
    .attention = scalar::attention,
    .log_sum_exp = scalar::log_sum_exp,
    .divergence = scalar::divergence,
    .weighted_sums = scalar::weighted_sums,
    .sweep = scalar::sweep,
    .gram = scalar::gram,
    .cholesky_diagonal = scalar::cholesky_diagonal,
    .cholesky_solve = scalar::cholesky_solve,
    .cholesky_subtract = scalar::cholesky_subtract,
    .integer_product = scalar::integer_product,
    .requantize = scalar::requantize,
};

}  // namespace scrimp
