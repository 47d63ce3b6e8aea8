/* Tables of all partial sums of a few inputs: built once for a group of inputs, read by every row.
 *
 * The last group may reach beyond the inputs, where the weights are 0: what lies there makes no difference, and the
 * arena does not end before. */
#ifndef SCRIMP_TABLES_H
#define SCRIMP_TABLES_H

#include <stdint.h>

/* n sums, which are the last of t, become 9n: t[9i + a + 3b] = sum i + a x0 + b x1. */
void scrimp_nines(int16_t *t, int32_t n, int32_t x0, int32_t x1);

/* 27 sums: t[a + 3b + 9c] = start + a x[0] + b x[1] + c x[2]. */
void scrimp_trits(int16_t *t, const int8_t *x, int32_t start);

/* The number `bytes` behind t: an offset that is doubled already costs no instruction of its own. */
#define SCRIMP_AT(t, bytes) (*(const int16_t *)(const void *)((const char *)(t) + (bytes)))

void scrimp_clear(int32_t *acc, int32_t n);

#endif
