// Rotations of a row of activations by a Hadamard matrix, for any width: the same code on every instruction set.
#pragma once

#include <cstdint>

namespace scrimp {

// y (n) = Q (d x), or with `inverse` y = d (Q x), where d (n) holds +-1/sqrt(p) and Q sqrt(p) = F_m (x) H_p:
//   n = m p with p the largest power of two in n. H_p is Sylvester's matrix of +-1 on each of the m contiguous
//   stretches of p, F_m the discrete Hartley transform over the stretches, F[j][k] = hartley[j k mod m] / orthogonal.
// Both factors are symmetric, so with d = +-1/sqrt(p) the two directions undo each other. x and y must not overlap.
// Error: |y - exact| <= gamma(m + log2(p) + 3) (|F| (x) |H|) |d x|. Cost: n (2 m + log2(p)) operations, no memory.
void rotate(const float* x, const float* d, const float* hartley, int64_t n, int64_t m, bool inverse, float* y);

}  // namespace scrimp
