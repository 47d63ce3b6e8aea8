/* a * b in 32 bits, also on processors without a multiplier: two bits of |b|, which is the smaller one, at a time. */
#ifndef SCRIMP_MULTIPLY_H
#define SCRIMP_MULTIPLY_H

#include "scrimp.h"

static inline int32_t scrimp_multiply(int32_t a, int32_t b)
{
#if SCRIMP_SOFTWARE_MULTIPLY
    uint32_t left = (uint32_t)(b < 0 ? -a : a), bits = (uint32_t)(b < 0 ? -b : b), product = 0;
    while (bits) {
        if (bits & 1)
            product += left;
        if (bits & 2)
            product += left << 1;
        left <<= 2;
        bits >>= 2;
    }
    return (int32_t)product;
#else
    return a * b;
#endif
}

#endif
