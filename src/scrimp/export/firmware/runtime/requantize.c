#include "multiply.h"
#include "scrimp.h"

static int32_t number(const void *of, const int8_t *high, int kind, int32_t i)
{
    const uint16_t *halves = of;
    if (kind == 0)
        i = 0;
    if (kind == 0 || kind == 4)
        return ((const int32_t *)of)[i];
    if (kind == 2)
        return (int16_t)halves[i];
    return halves[i] + (kind == 3 ? high[i] * 65536 : 0);
}

void scrimp_requantize(const struct scrimp_requantize *by, int32_t *acc, int32_t first, int32_t n, void *out)
{
    int8_t *codes = out;
    const int32_t *end = acc + n;
    for (; acc < end; acc++, first++) {
        const int32_t multiplier = number(by->multiplier, by->multiplier_high, by->multiplier_kind, first);
        const int32_t offset = number(by->offset, by->offset_high, by->offset_kind, first);
        const int32_t scaled = scrimp_multiply(*acc >> by->pre, multiplier);
        int32_t code = (scaled + (int32_t)((uint32_t)offset << by->offset_shift)) >> by->shift;
        if (by->logits) {
            *(int32_t *)out = code;
            out = (int32_t *)out + 1;
            continue;
        }
        if (code < by->low)
            code = by->low;
        if (code > by->high)
            code = by->high;
        *codes++ = (int8_t)code;
    }
}
