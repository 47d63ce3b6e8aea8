/* What the test programs need of the world outside: words, files, an exit. On a chip under QEMU or a debugger through
 * semihosting, on a desk through the C library. Nothing of the network needs it. */
#ifndef IO_H
#define IO_H

#include <stdint.h>

void io_print(const char *text);
void io_number(int32_t value);
int32_t io_open(const char *name, int writing); /* a handle, or -1 */
int32_t io_read(int32_t handle, void *to, int32_t bytes); /* how many came */
int32_t io_write(int32_t handle, const void *from, int32_t bytes); /* how many went */
void io_close(int32_t handle); /* what was written is there */
void io_exit(int32_t code);

#endif
