#include "scrimp.h"
#include "tables.h"

/* Five trits per byte: a table of all 243 partial sums of five inputs, |sum| <= 640. */
static void table(int16_t *t, const int8_t *x)
{
    scrimp_trits(t + 216, x + 2, -x[0] - x[1] - x[2] - x[3] - x[4]);
    scrimp_nines(t, 27, x[0], x[1]);
}

void scrimp_t5(const int8_t *x, int32_t k, const void *weight, int32_t n, int32_t *acc, int16_t *tables)
{
    const uint8_t *w = weight;
    scrimp_clear(acc, n);
    for (; k > 0; k -= 5, x += 5) {
        int8_t last[5];
        const uint8_t *end = w + n;
        int32_t *a = acc;
        table(tables, scrimp_group(last, 5, x, k));
        for (; end - w >= 4; w += 4, a += 4) {
            a[0] += tables[w[0]];
            a[1] += tables[w[1]];
            a[2] += tables[w[2]];
            a[3] += tables[w[3]];
        }
        while (w < end)
            *a++ += tables[*w++];
    }
}
