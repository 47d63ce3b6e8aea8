/* a * b in 32 bits, also on processors without a multiplier: two bits of |b| at a time, which should be the smaller. */
#ifndef SCRIMP_MULTIPLY_H
#define SCRIMP_MULTIPLY_H

#include "scrimp.h"

static inline int32_t scrimp_multiply(int32_t a, int32_t b)
{
#if SCRIMP_SOFTWARE_MULTIPLY
    const uint32_t sign = (uint32_t)(b >> 31); /* all ones below zero */
    uint32_t left = (uint32_t)a, bits = ((uint32_t)b ^ sign) - sign, product = 0;
    for (; bits; bits >>= 2, left <<= 2) {
        if (bits & 1)
            product += left;
        if (bits & 2)
            product += left + left;
    }
    return (int32_t)((product ^ sign) - sign);
#else
    return a * b;
#endif
}

#endif
