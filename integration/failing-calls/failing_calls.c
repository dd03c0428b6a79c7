/* Makes one system call of a process fail: preloaded into a worker.
 *
 * Counted are the calls on files whose path begins with WAL_FAULT_PREFIX, in
 * the order in which they are made; the one with the number WAL_FAULT_AT fails.
 * WAL_FAULT says how: the name of an error, or SHORT, which lets a read or
 * write stop half-way, or TORN, which lets a write stop half-way, and the next
 * one find the disk full, or FULL, which lets the system say that the disk has no
 * free space, or FREE, which lets it not say how much there is. With the error EINTR a call fails once and works when
 * it is made again. LOW closes stderr just before a file is opened, as another thread may,
 * so that this file gets the number 2, and writes a warning there at the end. NO_OFD lets
 * every call for a lock of an open file description fail, as a system that has none. SYNC lets
 * a sync fail, and counts syncs alone; SLOW counts them too, and lets each take 5 ms longer. Closing and unlocking do not fail. When the process ends,
 * the number of calls is written to WAL_FAULT_COUNT, and to the same file with
 * ".hit" whether one failed. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/uio.h>
#include <unistd.h>

enum kind { OPEN, READ, WRITE, WRITEBACK, SYNC, LOCK, MAP, SIZE, STAT, REMOVE, FREE };

static atomic_char marked[4096];
static atomic_long calls;
static atomic_int hit;
static atomic_int torn;

static const char *setting(const char *name) {
    const char *value = getenv(name);
    return value ? value : "";
}

static int is_ours(const char *path) {
    const char *prefix = setting("WAL_FAULT_PREFIX");
    return *prefix && path && strncmp(path, prefix, strlen(prefix)) == 0;
}

static int is_marked(int fd) {
    return fd >= 0 && fd < 4096 && atomic_load(&marked[fd]);
}

/* The errors that the system may give for a call of this kind. */
static int errno_for(enum kind kind) {
    const char *fault = setting("WAL_FAULT");
    if (!strcmp(fault, "SYNC")) return kind == SYNC ? EIO : 0;
    if (!strcmp(fault, "FREE")) return kind == FREE ? EIO : 0;
    if (!strcmp(fault, "EIO")) return kind == LOCK || kind == MAP || kind == FREE ? 0 : EIO;
    if (!strcmp(fault, "EINTR")) return kind == FREE || kind == STAT || kind == REMOVE || kind == MAP || kind == WRITEBACK ? 0 : EINTR;
    if (!strcmp(fault, "ENOSPC"))
        return kind == WRITE || kind == WRITEBACK || kind == SIZE || kind == OPEN ? ENOSPC : 0;
    if (!strcmp(fault, "EMFILE")) return kind == OPEN ? EMFILE : 0;
    if (!strcmp(fault, "EACCES")) return kind == OPEN || kind == REMOVE ? EACCES : 0;
    if (!strcmp(fault, "ENOLCK")) return kind == LOCK ? ENOLCK : 0;
    if (!strcmp(fault, "ENOMEM")) return kind == MAP ? ENOMEM : 0;
    return 0;
}

/* True if this call is the one; of kinds that cannot fail so, none is. */
static int is_chosen(void) {
    return atomic_fetch_add(&calls, 1) + 1 == atol(setting("WAL_FAULT_AT"));
}

static int fails(enum kind kind) {
    if (kind == WRITE && atomic_load(&hit) && !strcmp(setting("WAL_FAULT"), "TORN") &&
        !atomic_exchange(&torn, 1)) {
        errno = ENOSPC;
        return 1;
    }
    int error = errno_for(kind);
    if (!error || !is_chosen()) return 0;
    atomic_store(&hit, 1);
    errno = error;
    return 1;
}

static int is_short(enum kind kind) {
    const char *fault = setting("WAL_FAULT");
    int may_be = !strcmp(fault, "SHORT") || (kind == WRITE && !strcmp(fault, "TORN"));
    if (!may_be || !is_chosen()) return 0;
    atomic_store(&hit, 1);
    return 1;
}

__attribute__((destructor)) static void tell(void) {
    if (!strcmp(setting("WAL_FAULT"), "LOW")) dprintf(2, "a warning of another library\n");
    const char *path = setting("WAL_FAULT_COUNT");
    if (!*path) return;
    FILE *file = fopen(path, "w");
    if (!file) return;
    fprintf(file, "%ld %d\n", atomic_load(&calls), atomic_load(&hit));
    fclose(file);
}

#define REAL(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))

static int marking(int fd, const char *path) {
    if (fd >= 0 && fd < 4096) atomic_store(&marked[fd], is_ours(path));
    return fd;
}

static void close_before_open(const char *path) {
    if (!is_ours(path) || strcmp(setting("WAL_FAULT"), "LOW") || !is_chosen()) return;
    atomic_store(&hit, 1);
    close(2);
}

#define OPEN_AS(name)                                              \
    int name(const char *path, int flags, ...) {                   \
        va_list arguments;                                         \
        va_start(arguments, flags);                                \
        mode_t mode = va_arg(arguments, mode_t);                   \
        va_end(arguments);                                         \
        if (is_ours(path) && fails(OPEN)) return -1;               \
        close_before_open(path);                                   \
        return marking(REAL(name)(path, flags, mode), path);       \
    }
OPEN_AS(open)
OPEN_AS(open64)

/* The path of `name` in the directory `at`. */
static const char *path_in(int at, const char *name, char path[PATH_MAX]) {
    char link[64];
    if (at == AT_FDCWD || !name || *name == '/' || !*name) return name;
    snprintf(link, sizeof link, "/proc/self/fd/%d", at);
    ssize_t len = readlink(link, path, PATH_MAX - 1);
    if (len < 0) return name;
    snprintf(path + len, PATH_MAX - len, "/%s", name);
    return path;
}

#define OPEN_IN_AS(name)                                           \
    int name(int at, const char *file, int flags, ...) {           \
        va_list arguments;                                         \
        va_start(arguments, flags);                                \
        mode_t mode = va_arg(arguments, mode_t);                   \
        va_end(arguments);                                         \
        char buffer[PATH_MAX];                                     \
        const char *path = path_in(at, file, buffer);              \
        if (is_ours(path) && fails(OPEN)) return -1;               \
        close_before_open(path);                                   \
        return marking(REAL(name)(at, file, flags, mode), path);   \
    }
OPEN_IN_AS(openat)
OPEN_IN_AS(openat64)

#define STAT_IN_AS(name, stat_type)                                \
    int name(int at, const char *restrict file, struct stat_type *restrict found, int flags) { \
        char buffer[PATH_MAX];                                     \
        if (is_ours(path_in(at, file, buffer)) && fails(STAT)) return -1; \
        return REAL(name)(at, file, found, flags);                 \
    }
STAT_IN_AS(fstatat, stat)
STAT_IN_AS(fstatat64, stat64)

#define READ_AS(name, offset_type)                                            \
    ssize_t name(int fd, void *buffer, size_t len, offset_type at) {          \
        if (is_marked(fd)) {                                                  \
            if (fails(READ)) return -1;                                       \
            if (len > 1 && is_short(READ)) len /= 2;                              \
        }                                                                     \
        return REAL(name)(fd, buffer, len, at);                               \
    }
READ_AS(pread, off_t)
READ_AS(pread64, off64_t)

#define WRITE_AS(name, offset_type)                                           \
    ssize_t name(int fd, const void *buffer, size_t len, offset_type at) {    \
        if (is_marked(fd)) {                                                  \
            if (fails(WRITE)) return -1;                                      \
            if (len > 1 && is_short(WRITE)) len /= 2;                              \
        }                                                                     \
        return REAL(name)(fd, buffer, len, at);                               \
    }
WRITE_AS(pwrite, off_t)
WRITE_AS(pwrite64, off64_t)

#define WRITEV_AS(name, offset_type)                                          \
    ssize_t name(int fd, const struct iovec *parts, int count, offset_type at) { \
        if (is_marked(fd)) {                                                  \
            if (fails(WRITE)) return -1;                                      \
            if (is_short(WRITE)) {                                                 \
                struct iovec half = parts[0];                                 \
                half.iov_len = half.iov_len / 2 + 1;                          \
                return REAL(name)(fd, &half, 1, at);                          \
            }                                                                 \
        }                                                                     \
        return REAL(name)(fd, parts, count, at);                              \
    }
WRITEV_AS(pwritev, off_t)
WRITEV_AS(pwritev64, off64_t)

#define CALL_ON_FD(name, kind, parameters, ...)            \
    int name parameters {                                  \
        if (is_marked(fd) && fails(kind)) return -1;       \
        return REAL(name)(__VA_ARGS__);                    \
    }

#define SYNC_AS(name)                                            \
    int name(int fd) {                                           \
        if (is_marked(fd) && fails(SYNC)) return -1;             \
        if (is_marked(fd) && !strcmp(setting("WAL_FAULT"), "SLOW")) { \
            atomic_fetch_add(&calls, 1);                         \
            usleep(5000);                                        \
        }                                                        \
        return REAL(name)(fd);                                   \
    }
SYNC_AS(fsync)
SYNC_AS(fdatasync)

CALL_ON_FD(sync_file_range, WRITEBACK, (int fd, off64_t at, off64_t len, unsigned flags), fd, at, len, flags)
CALL_ON_FD(ftruncate, SIZE, (int fd, off_t len), fd, len)
CALL_ON_FD(ftruncate64, SIZE, (int fd, off64_t len), fd, len)
CALL_ON_FD(fallocate, SIZE, (int fd, int mode, off_t at, off_t len), fd, mode, at, len)
CALL_ON_FD(fallocate64, SIZE, (int fd, int mode, off64_t at, off64_t len), fd, mode, at, len)

int statx(int fd, const char *restrict path, int flags, unsigned mask, struct statx *restrict found) {
    int ours = path && *path ? is_ours(path) : is_marked(fd);
    if (ours && fails(STAT)) return -1;
    return REAL(statx)(fd, path, flags, mask, found);
}

/* Of a disk that is full the size is told, and that none of it is free. */
static int is_chosen_full(void) {
    if (strcmp(setting("WAL_FAULT"), "FULL") || !is_chosen()) return 0;
    atomic_store(&hit, 1);
    return 1;
}

#define FSTATVFS_AS(name, of)                                  \
    int name(int fd, struct of *found) {                       \
        if (is_marked(fd) && fails(FREE)) return -1;           \
        int full = is_marked(fd) && is_chosen_full();          \
        int answer = REAL(name)(fd, found);                    \
        if (full && !answer) found->f_bfree = found->f_bavail = 0; \
        return answer;                                         \
    }
FSTATVFS_AS(fstatvfs, statvfs)
FSTATVFS_AS(fstatvfs64, statvfs64)

int unlinkat(int at, const char *file, int flags) {
    char buffer[PATH_MAX];
    if (is_ours(path_in(at, file, buffer)) && fails(REMOVE)) return -1;
    return REAL(unlinkat)(at, file, flags);
}

#define MAP_AS(name, offset_type)                                                        \
    void *name(void *start, size_t len, int access, int flags, int fd, offset_type at) { \
        if (is_marked(fd) && fails(MAP)) return MAP_FAILED;                              \
        return REAL(name)(start, len, access, flags, fd, at);                            \
    }
MAP_AS(mmap, off_t)
MAP_AS(mmap64, off64_t)

#define LOCK_AS(name)                                                            \
    int name(int fd, int command, ...) {                                         \
        va_list arguments;                                                       \
        va_start(arguments, command);                                            \
        void *argument = va_arg(arguments, void *);                              \
        va_end(arguments);                                                       \
        int locks = command == F_SETLK || command == F_OFD_SETLK ||              \
                    command == F_GETLK || command == F_OFD_GETLK;                \
        int descriptions = command == F_OFD_SETLK || command == F_OFD_GETLK;     \
        if (descriptions && is_marked(fd) && !strcmp(setting("WAL_FAULT"), "NO_OFD")) { \
            atomic_store(&hit, 1);                                               \
            errno = EINVAL;                                                      \
            return -1;                                                           \
        }                                                                        \
        int unlocks = locks && ((struct flock *)argument)->l_type == F_UNLCK;    \
        if (locks && !unlocks && is_marked(fd) && fails(LOCK)) return -1;        \
        return REAL(name)(fd, command, argument);                                \
    }
LOCK_AS(fcntl)
LOCK_AS(fcntl64)
