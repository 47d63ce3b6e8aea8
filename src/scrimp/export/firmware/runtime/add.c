#include "multiply.h"
#include "scrimp.h"

void scrimp_add(const struct scrimp_add *op, const int8_t *a, const int8_t *b, int8_t *out, int32_t n)
{
    int32_t i;
    for (i = 0; i < n; i++) {
        const int32_t sum = scrimp_multiply(op->multiplier_a, a[i]) + scrimp_multiply(op->multiplier_b, b[i]);
        int32_t code = (sum + op->offset) >> op->shift;
        if (code < op->low)
            code = op->low;
        if (code > op->high)
            code = op->high;
        out[i] = (int8_t)code;
    }
}
