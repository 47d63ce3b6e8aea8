/* ARM semihosting, which RISC-V took over: an operation's number and one argument, a trap, and the host answers. */
#include "io.h"

enum { OPEN = 0x01, CLOSE = 0x02, WRITE0 = 0x04, WRITE = 0x05, READ = 0x06, EXIT_EXTENDED = 0x20 };
enum { READ_BINARY = 1, WRITE_BINARY = 5, APPLICATION_EXIT = 0x20026 };

static int32_t call(int32_t operation, const void *argument)
{
#ifdef __riscv
    register int32_t a0 __asm__("a0") = operation;
    register const void *a1 __asm__("a1") = argument;
    /* The three must be uncompressed and on one page. */
    __asm__ volatile(".option push\n.option norvc\n.balign 16\nslli x0, x0, 0x1f\nebreak\nsrai x0, x0, 7\n.option pop"
                     : "+r"(a0)
                     : "r"(a1)
                     : "memory");
    return a0;
#else
    register int32_t r0 __asm__("r0") = operation;
    register const void *r1 __asm__("r1") = argument;
    __asm__ volatile("bkpt 0xab" : "+r"(r0) : "r"(r1) : "memory");
    return r0;
#endif
}

void io_print(const char *text)
{
    call(WRITE0, text);
}

int32_t io_open(const char *name, int writing)
{
    struct {
        const char *name;
        int32_t mode, length;
    } block = {name, writing ? WRITE_BINARY : READ_BINARY, 0};
    while (name[block.length])
        block.length++;
    return call(OPEN, &block);
}

static int32_t move(int32_t operation, int32_t handle, const void *at, int32_t bytes)
{
    struct {
        int32_t handle;
        const void *at;
        int32_t bytes;
    } block;
    block.handle = handle;
    block.at = at;
    block.bytes = bytes;
    return bytes - call(operation, &block); /* it says how many are left */
}

int32_t io_read(int32_t handle, void *to, int32_t bytes)
{
    return move(READ, handle, to, bytes);
}

int32_t io_write(int32_t handle, const void *from, int32_t bytes)
{
    return move(WRITE, handle, from, bytes);
}

void io_close(int32_t handle)
{
    call(CLOSE, &handle);
}

void io_exit(int32_t code)
{
    int32_t block[2];
    block[0] = APPLICATION_EXIT;
    block[1] = code;
    call(EXIT_EXTENDED, block);
    for (;;) {
    }
}
