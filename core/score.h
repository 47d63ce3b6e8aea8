// How good a row of logits is: against the token that came, and against the logits of a reference.
#pragma once

#include <cstdint>

#include "kernels/kernels.h"
#include "pool.h"

namespace scrimp {

struct Scores {           // one value per row
  double* nll;            // -log p(target), nats
  double* nll_reference;  // the same under the reference; null without one
  double* kl;             // KL(reference || model), nats; null without a reference
  uint8_t* same_top;      // both have the same most likely token; null without a reference
};

void score(const float* logits, const float* reference, const int32_t* targets, int64_t rows, int64_t vocab,
           const Scores& out, Pool& pool, const Kernels& kernels);

}  // namespace scrimp
