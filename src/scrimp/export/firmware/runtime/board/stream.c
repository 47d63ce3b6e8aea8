/* pictures.bin, MODEL_PICTURE bytes each, to logits.bin, MODEL_LOGITS int32 each; and how much RAM was never used. */
#include "io.h"
#include "model.h"

#ifdef CHIP
#define PAINT 0xa5c35a3cu
extern uint32_t bss_end[], stack_top[];

static void paint(void)
{
    volatile uint32_t here = 0;
    const uintptr_t below = (uintptr_t)&here - 64; /* what is painted is not in use */
    volatile uint32_t *at;
    for (at = bss_end; (uintptr_t)at < below; at++)
        *at = PAINT;
}

static int32_t unused(void)
{
    const volatile uint32_t *at = bss_end;
    while (at < stack_top && *at == PAINT)
        at++;
    return (int32_t)(at - bss_end) * 4;
}
#endif

int main(void)
{
    const int32_t from = io_open("pictures.bin", 0), to = io_open("logits.bin", 1);
    int32_t n = 0, bytes;
    if (from < 0 || to < 0) {
        io_print("pictures.bin can't be read or logits.bin can't be written\n");
        return 1;
    }
#ifdef CHIP
    paint();
#endif
    while ((bytes = io_read(from, model_picture, MODEL_PICTURE)) == MODEL_PICTURE) {
        if (io_write(to, model_run(), MODEL_LOGITS * 4) != MODEL_LOGITS * 4)
            return 1;
        n++;
    }
    io_close(to);
    io_number(n);
    io_print(" pictures");
#ifdef CHIP
    io_print(", bytes of RAM never used: ");
    io_number(unused());
#endif
    io_print("\n");
    return bytes ? 1 : 0;
}
