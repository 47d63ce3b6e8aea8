#include <stdio.h>
#include <stdlib.h>

#include "io.h"

static FILE *files[8];

void io_print(const char *text)
{
    fputs(text, stdout);
}

int32_t io_open(const char *name, int writing)
{
    int32_t i = 0;
    while (i < 8 && files[i])
        i++;
    if (i == 8 || !(files[i] = fopen(name, writing ? "wb" : "rb")))
        return -1;
    return i;
}

int32_t io_read(int32_t handle, void *to, int32_t bytes)
{
    return (int32_t)fread(to, 1, (size_t)bytes, files[handle]);
}

int32_t io_write(int32_t handle, const void *from, int32_t bytes)
{
    return (int32_t)fwrite(from, 1, (size_t)bytes, files[handle]);
}

void io_close(int32_t handle)
{
    fclose(files[handle]);
    files[handle] = NULL;
}

void io_exit(int32_t code)
{
    exit(code);
}
