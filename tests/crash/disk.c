/*
 * A disk that fails on command, for LD_PRELOAD: while the file $SOLSTICE_RACE/disk exists, which says "ERRNO PART", each
 * write and sync of a file whose path has PART in it fails with ERRNO.  See tests/crash/disk.py.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <unistd.h>

/* 0 while the disk is well.  Nothing here may go through the functions below, or change errno when it is. */
static int failure(int fd)
{
    const char *folder = getenv("SOLSTICE_RACE");
    char name[4096], text[256] = "", part[200] = "", path[4096] = "";
    int order, number = 0, before = errno;
    ssize_t length = -1;

    if (folder == NULL)
        return 0;
    snprintf(name, sizeof name, "%s/disk", folder);
    order = open(name, O_RDONLY | O_CLOEXEC);
    if (order >= 0) {
        length = read(order, text, sizeof text - 1);
        close(order);
    }
    errno = before;
    if (length <= 0 || sscanf(text, "%d %199s", &number, part) != 2)
        return 0;
    snprintf(name, sizeof name, "/proc/self/fd/%d", fd);
    if (readlink(name, path, sizeof path - 1) <= 0)
        path[0] = '\0';
    errno = before;
    return strstr(path, part) != NULL ? number : 0;
}

#define FAILING(result, function, parameters, arguments)             \
    result function parameters                                       \
    {                                                                \
        static result(*real) parameters;                             \
        int number = failure(fd);                                    \
        if (number != 0) {                                           \
            errno = number;                                          \
            return -1;                                               \
        }                                                            \
        if (real == NULL)                                            \
            real = (result(*) parameters)dlsym(RTLD_NEXT, #function); \
        return real arguments;                                       \
    }

FAILING(ssize_t, write, (int fd, const void *data, size_t size), (fd, data, size))
FAILING(ssize_t, pwrite, (int fd, const void *data, size_t size, off_t at), (fd, data, size, at))
FAILING(ssize_t, pwrite64, (int fd, const void *data, size_t size, off64_t at), (fd, data, size, at))
FAILING(ssize_t, writev, (int fd, const struct iovec *data, int count), (fd, data, count))
FAILING(int, fsync, (int fd), (fd))
FAILING(int, fdatasync, (int fd), (fd))
