#include "scrimp.h"
#include "tables.h"

/* acc[i] += t[w[i]]; returns w + n. */
static const uint8_t *rows(const int16_t *t, const uint8_t *w, int32_t *acc, int32_t n)
{
    do {
        *acc++ += t[*w++];
    } while (--n > 0);
    return w;
}

/* Five trits per byte: a table of all 243 partial sums of five inputs, |sum| <= 640. Small, for where flash is what is
 * short: it is the packing with the fewest bytes. */
void scrimp_t5(const int8_t *x, int32_t k, const void *weight, int32_t n, int32_t *acc, int16_t *tables)
{
    const uint8_t *w = weight;
    const int8_t *const last = x + k;
    scrimp_clear(acc, n);
    for (; x < last; x += 5) {
        scrimp_trits(tables + 216, x + 2, -x[0] - x[1] - x[2] - x[3] - x[4]);
        scrimp_nines(tables, 27, x[0], x[1]);
        w = rows(tables, w, acc, n);
    }
}
