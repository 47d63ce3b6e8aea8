/* What a compiler may call on its own. */
#include <stddef.h>

void *memcpy(void *to, const void *from, size_t bytes);
void *memset(void *to, int value, size_t bytes);

void *memcpy(void *to, const void *from, size_t bytes)
{
    unsigned char *a = to;
    const unsigned char *b = from;
    while (bytes--)
        *a++ = *b++;
    return to;
}

void *memset(void *to, int value, size_t bytes)
{
    unsigned char *a = to;
    while (bytes--)
        *a++ = (unsigned char)value;
    return to;
}
