#include "scrimp.h"
#include "tables.h"

/* Nineteen trits per word: five tables of the 27 partial sums of three inputs, one of the 81 of four. */
static void tables_of(int16_t *t, const int8_t *x)
{
    int32_t start;
    int i;
    for (i = 0; i < 5; i++, x += 3)
        t = scrimp_trits(t, -x[0] - x[1] - x[2], x[0], x[1], x[2]);
    start = -x[0] - x[1] - x[2] - x[3];
    for (i = 0; i < 3; i++, start += x[3])
        t = scrimp_trits(t, start, x[0], x[1], x[2]);
}

void scrimp_t19(const int8_t *x, int32_t k, const void *weight, int32_t n, int32_t *acc, int16_t *tables)
{
    const uint32_t *w = weight;
    scrimp_clear(acc, n);
    for (; k > 0; k -= 19, x += 19) {
        int8_t last[19];
        const uint32_t *end = w + n;
        int32_t *a = acc;
        if (k < 19)
            scrimp_group(last, 19, x, k);
        tables_of(tables, k < 19 ? last : x);
        while (w < end) {
            const uint32_t c = *w++;
            const int32_t low = tables[c & 31] + tables[27 + (c >> 5 & 31)] + tables[54 + (c >> 10 & 31)];
            const int32_t high = tables[81 + (c >> 15 & 31)] + tables[108 + (c >> 20 & 31)] + tables[135 + (c >> 25)];
            *a++ += low + high;
        }
    }
}
