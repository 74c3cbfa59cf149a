/* For LD_PRELOAD: reading a file whose path ends with $FAULT_NAME fails, kills the process or blocks it.
 *
 * $FAULT_WHAT is the number of an error, "segv" or "block". It happens $FAULT_TIMES times in all processes together,
 * after $FAULT_AFTER reads that are as ever: with each of these and those a byte is added to the file $FAULT_COUNT. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static int is_meant(int file)
{
    const char *name = getenv("FAULT_NAME");
    char link[64], path[4096];
    if (name == NULL)
        return 0;
    snprintf(link, sizeof link, "/proc/self/fd/%d", file);
    ssize_t length = readlink(link, path, sizeof path - 1);
    if (length < (ssize_t)strlen(name))
        return 0;
    path[length] = 0;
    return strcmp(path + length - strlen(name), name) == 0;
}

static int is_due(void)
{
    struct stat status;
    int file = open(getenv("FAULT_COUNT"), O_WRONLY | O_CREAT | O_APPEND, 0644);
    long after = atol(getenv("FAULT_AFTER")), end = after + atol(getenv("FAULT_TIMES"));
    int due = 0;
    if (fstat(file, &status) == 0 && status.st_size < end && write(file, "x", 1) == 1)
        due = status.st_size >= after;
    close(file);
    return due;
}

/* Gives 0 where reading goes on, -1 where it has failed. */
static int fault(int file)
{
    if (!is_meant(file) || !is_due())
        return 0;
    const char *what = getenv("FAULT_WHAT");
    if (strcmp(what, "segv") == 0) {
        signal(SIGSEGV, SIG_DFL);
        raise(SIGSEGV);
    }
    while (strcmp(what, "block") == 0)
        pause();
    errno = atoi(what);
    return -1;
}

#define READ(name, parameters, arguments)                                        \
    ssize_t name parameters                                                      \
    {                                                                            \
        ssize_t(*real) parameters = (ssize_t(*) parameters)dlsym(RTLD_NEXT, #name); \
        return fault(file) == 0 ? real arguments : -1;                           \
    }

READ(read, (int file, void *to, size_t count), (file, to, count))
READ(pread, (int file, void *to, size_t count, off_t at), (file, to, count, at))
READ(pread64, (int file, void *to, size_t count, off64_t at), (file, to, count, at))
