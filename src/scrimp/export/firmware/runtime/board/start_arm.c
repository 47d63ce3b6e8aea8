/* Cortex-M: the vector table, and what must be so before main. There is no .data: chip.ld sees to it. */
#include <stdint.h>

#include "io.h"

extern uint32_t bss_start[], bss_end[], stack_top[];
int main(void);

void start(void)
{
    uint32_t *to;
    for (to = bss_start; to < bss_end; to++)
        *to = 0;
    io_exit(main());
}

static void fault(void)
{
    io_exit(127);
}

__attribute__((section(".vectors"), used)) const void *const vectors[16] = {
    stack_top, (const void *)start, (const void *)fault, (const void *)fault,
    (const void *)fault, (const void *)fault, (const void *)fault, 0,
    0, 0, 0, (const void *)fault, (const void *)fault, 0, (const void *)fault, (const void *)fault,
};
