#include "multiply.h"
#include "scrimp.h"

static int32_t number(const void *of, const int8_t *high, int kind, int32_t i)
{
    int32_t value;
    if (kind == 4)
        return ((const int32_t *)of)[i];
    if (kind == 0)
        return *(const int32_t *)of;
    value = ((const uint16_t *)of)[i];
    if (kind == 3)
        value += high[i] * 65536;
    return value;
}

int32_t scrimp_code(const struct scrimp_requantize *by, int32_t sum, int32_t channel)
{
    const int32_t own = number(by->multiplier, by->multiplier_high, by->multiplier_kind, channel);
    const int32_t scaled = scrimp_multiply(sum >> by->pre, by->multiplier_base + own);
    const int32_t offset = number(by->offset, by->offset_high, by->offset_kind, channel);
    return (scaled + (int32_t)((uint32_t)offset << by->offset_shift)) >> by->shift;
}
