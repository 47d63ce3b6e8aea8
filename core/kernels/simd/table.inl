// The table of a folder of kernels, included inside its namespace, in an unnamed one. Constant-initialised: nothing
// here runs before main, so no instruction of the set either.

constexpr Kernels table(const char* isa, decltype(Kernels::int8_peak) peak, decltype(Kernels::linear_int8) product,
                        const Bf16Kernels& bf16 = {}) {
  return {
      .isa = isa,
      .read = read,
      .int8_peak = peak,
      .f32_peak = f32_peak,
      .quantize = quantize,
      .linear_int8 = product,
      .linear_f32 = linear_f32,
      .scratch_bytes = kScratchBytes,
      .bf16 = bf16,
      .rms_norm = rms_norm,
      .layer_norm = layer_norm,
      .activation = activation,
      .softcap = softcap,
      .add = add,
      .rope = rope,
      .to_f16 = to_f16,
      .to_codes = to_codes,
      .attention = attention,
      .log_sum_exp = log_sum_exp,
      .divergence = divergence,
      .weighted_sums = weighted_sums,
      .sweep = sweep,
      .sweep_both = sweep_both,
      .gram = gram,
      .cholesky_diagonal = cholesky_diagonal,
      .cholesky_solve = cholesky_solve,
      .cholesky_subtract = cholesky_subtract,
      .integer_product = integer_product,
      .requantize = requantize,
  };
}
