/* Cortex-M: the vector table, and what must be so before main. There is no .data: chip.ld sees to it. */
#include <stdint.h>

#include "io.h"

extern uint32_t bss_start[], bss_end[], stack_top[];
int main(void);
void start(void);

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

typedef void handler(void);

/* The top of the stack, then reset, NMI, the faults, and system calls and timers nobody asked for. */
static const struct {
    uint32_t *stack;
    handler *handlers[15];
} vectors __attribute__((section(".vectors"), used)) = {
    stack_top,
    {start, fault, fault, fault, fault, fault, 0, 0, 0, 0, fault, fault, 0, fault, fault},
};
