#include "io.h"

/* Decimal, without a division: the smallest chips have none. */
void io_number(int32_t value)
{
    static const uint32_t powers[] = {1000000000, 100000000, 10000000, 1000000, 100000, 10000, 1000, 100, 10, 1};
    uint32_t left = value < 0 ? 0u - (uint32_t)value : (uint32_t)value;
    char text[12];
    int at = 0, i;
    if (value < 0)
        text[at++] = '-';
    for (i = 0; i < 10; i++) {
        char digit = '0';
        for (; left >= powers[i]; left -= powers[i])
            digit++;
        if (digit > '0' || i == 9 || (at > 0 && text[at - 1] != '-'))
            text[at++] = digit;
    }
    text[at] = 0;
    io_print(text);
}
