#include "scrimp.h"

void scrimp_pixels(uint8_t *bytes, int32_t n, int32_t zero, int32_t shift)
{
    const uint8_t *end = bytes + n;
    for (; bytes < end; bytes++)
        *(int8_t *)bytes = (int8_t)((*bytes - zero) >> shift);
}
