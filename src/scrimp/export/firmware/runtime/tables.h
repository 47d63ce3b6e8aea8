/* Tables of all partial sums of a few inputs: built once for a group of inputs, read by every row. */
#ifndef SCRIMP_TABLES_H
#define SCRIMP_TABLES_H

#include <stdint.h>

/* n sums, which are the last of t, become 9n: t[9i + a + 3b] = sum i + a x0 + b x1. */
void scrimp_nines(int16_t *t, int32_t n, int32_t x0, int32_t x1);

/* 27 sums: t[a + 3b + 9c] = start + a x[0] + b x[1] + c x[2]. */
void scrimp_trits(int16_t *t, const int8_t *x, int32_t start);

/* The number `bytes` behind t: an offset that is doubled already costs no instruction of its own. */
#define SCRIMP_AT(t, bytes) (*(const int16_t *)(const void *)((const char *)(t) + (bytes)))

/* A group that the inputs do not fill: zeros behind them. */
static inline const int8_t *scrimp_group(int8_t *group, int32_t size, const int8_t *x, int32_t left)
{
    int32_t i;
    if (left >= size)
        return x;
    for (i = 0; i < size; i++)
        group[i] = i < left ? x[i] : 0;
    return group;
}

static inline void scrimp_clear(int32_t *acc, int32_t n)
{
    while (n-- > 0)
        *acc++ = 0;
}

#endif
