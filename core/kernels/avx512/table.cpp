// The table of this folder. Constant-initialised: nothing here runs before main, so no instruction of this set either.
#include "kernels/avx512/isa.h"

namespace scrimp {

constinit const Kernels kAvx512Kernels = {
    .isa = "avx512",
    .read = avx512::read,
    .int8_peak = avx512::int8_peak,
    .f32_peak = avx512::f32_peak,
    .quantize = avx512::quantize,
    .linear_int8 = avx512::linear_int8,
    .linear_f32 = avx512::linear_f32,
    .scratch_bytes = avx512::kScratchBytes,
    .rms_norm = avx512::rms_norm,
    .layer_norm = avx512::layer_norm,
    .activation = avx512::activation,
    .softcap = avx512::softcap,
    .add = avx512::add,
    .rope = avx512::rope,
    .to_f16 = avx512::to_f16,
    .to_codes = avx512::to_codes,
    .attention = avx512::attention,
    .log_sum_exp = avx512::log_sum_exp,
    .divergence = avx512::divergence,
    .weighted_sums = avx512::weighted_sums,
    .sweep = avx512::sweep,
    .gram = avx512::gram,
    .cholesky_diagonal = avx512::cholesky_diagonal,
    .cholesky_solve = avx512::cholesky_solve,
    .cholesky_subtract = avx512::cholesky_subtract,
    .integer_product = avx512::integer_product,
    .requantize = avx512::requantize,
};

}  // namespace scrimp
