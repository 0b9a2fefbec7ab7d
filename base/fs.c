/* fs.c - every call of fs.h, each with its place for an injected fault. */
#include "base/fs.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include "base/fs_fault.h"
#include "base/log.h"
#include "base/mem.h"

/* Run expr, which returns -1 and errno on failure, behind the gate of op. */
#define GATED(op, result, expr)                       \
    do {                                              \
        bool after_;                                  \
        int error_ = fs_fault_before((op), &after_);  \
        if (error_) {                                 \
            errno = error_;                           \
            (result) = -1;                            \
        } else {                                      \
            do {                                      \
                (result) = (expr);                    \
            } while ((result) < 0 && errno == EINTR); \
        }                                             \
        if (after_) raise(SIGKILL);                   \
    } while (0)

static kr_status fail(const char *what, const char *path)
{
    return KR_FAIL(KR_ERR_IO, "%s: %s: %s", path, what, strerror(errno));
}

/* ---- files -------------------------------------------------------------------------- */

kr_status fs_path(char out[FS_PATH], const char *fmt, ...)
{
    va_list ap;
    int n;

    va_start(ap, fmt);
    n = vsnprintf(out, FS_PATH, fmt, ap);
    va_end(ap);
    if (n < 0 || n >= FS_PATH) return KR_FAIL(KR_ERR_ARG, "path too long: %.80s...", out);
    return KR_OK;
}

kr_status fs_open(int *fd, const char *path, int flags)
{
    int got;

    GATED(FS_OPEN, got, open(path, flags | O_CLOEXEC, 0600));
    if (got < 0) return fail("cannot open", path);
    *fd = got;
    return KR_OK;
}

kr_status fs_close(int fd, const char *path)
{
    bool after;
    int error = fs_fault_before(FS_CLOSE, &after);

    if (close(fd) != 0 && errno != EINTR) error = errno;
    if (after) raise(SIGKILL);
    if (!error) return KR_OK;
    errno = error;
    return fail("cannot close", path);
}

kr_status fs_pwrite(int fd, const char *path, const void *from, size_t bytes, uint64_t at)
{
    const char *p = from;

    while (bytes > 0) {
        ssize_t put;

        GATED(FS_WRITE, put, pwrite(fd, p, bytes, (off_t)at));
        if (put < 0) return fail("cannot write", path);
        p += put;
        at += (uint64_t)put;
        bytes -= (size_t)put;
    }
    return KR_OK;
}

kr_status fs_pread(int fd, const char *path, void *to, size_t bytes, uint64_t at)
{
    char *p = to;

    while (bytes > 0) {
        ssize_t got = pread(fd, p, bytes, (off_t)at);

        if (got < 0 && errno == EINTR) continue;
        if (got < 0) return fail("cannot read", path);
        if (got == 0)
            return KR_FAIL(KR_ERR_DATA, "%s: ends %zu bytes early", path, bytes);
        p += got;
        at += (uint64_t)got;
        bytes -= (size_t)got;
    }
    return KR_OK;
}

kr_status fs_fsync(int fd, const char *path)
{
    int got;

    GATED(FS_FSYNC, got, fsync(fd));
    return got < 0 ? fail("cannot flush to disk", path) : KR_OK;
}

void fs_start_flush(int fd, uint64_t at, size_t bytes)
{
    (void)sync_file_range(fd, (off_t)at, (off_t)bytes, SYNC_FILE_RANGE_WRITE);
}

kr_status fs_size(int fd, const char *path, uint64_t *bytes)
{
    struct stat st;

    if (fstat(fd, &st) != 0) return fail("cannot stat", path);
    *bytes = (uint64_t)st.st_size;
    return KR_OK;
}

kr_status fs_fsync_dir(const char *path)
{
    kr_status st;
    int fd = -1;

    TRY(fs_open(&fd, path, O_RDONLY | O_DIRECTORY));
    st = fs_fsync(fd, path);
    close(fd);
    return st;
}

kr_status fs_rename(const char *from, const char *to)
{
    int got;

    GATED(FS_RENAME, got, rename(from, to));
    if (got < 0)
        return KR_FAIL(KR_ERR_IO, "%s: cannot rename to %s: %s", from, to,
                       strerror(errno));
    return KR_OK;
}

kr_status fs_unlink(const char *path)
{
    int got;

    GATED(FS_UNLINK, got, unlink(path));
    return got < 0 && errno != ENOENT ? fail("cannot remove", path) : KR_OK;
}

kr_status fs_mkdir(const char *path)
{
    int got;

    GATED(FS_MKDIR, got, mkdir(path, 0700));
    return got < 0 ? fail("cannot make folder", path) : KR_OK;
}

static bool is_folder(const char *path)
{
    struct stat st;

    return stat(path, &st) == 0 && S_ISDIR(st.st_mode);
}

kr_status fs_mkdirs(const char *path)
{
    char copy[FS_PATH];

    TRY(fs_path(copy, "%s", path));
    for (char *slash = strchr(copy + 1, '/'); slash; slash = strchr(slash + 1, '/')) {
        *slash = '\0';
        /* ranks and threads may race for the same folder: only its absence is an error */
        if (mkdir(copy, 0700) != 0 && !is_folder(copy))
            return fail("cannot make folder", copy);
        *slash = '/';
    }
    if (is_folder(copy)) return KR_OK;
    if (mkdir(copy, 0700) != 0 && !is_folder(copy))
        return fail("cannot make folder", copy);
    return KR_OK;
}

kr_status fs_mkdirs_of(const char *path)
{
    char folder[FS_PATH];
    const char *slash = strrchr(path, '/');

    if (!slash || slash == path) return KR_OK;
    TRY(fs_path(folder, "%.*s", (int)(slash - path), path));
    return fs_mkdirs(folder);
}

kr_status fs_remove_tree(const char *path)
{
    struct stat st;
    char **names = NULL, child[FS_PATH];
    size_t count = 0;
    int got;

    if (lstat(path, &st) != 0) return errno == ENOENT ? KR_OK : fail("cannot stat", path);
    if (!S_ISDIR(st.st_mode)) return fs_unlink(path);
    TRY(fs_list(path, &names, &count));
    for (size_t i = 0; i < count; i++) {
        kr_status s = fs_path(child, "%s/%s", path, names[i]);

        if (s == KR_OK) s = fs_remove_tree(child);
        if (s != KR_OK) {
            fs_free_names(names, count);
            return s;
        }
    }
    fs_free_names(names, count);
    GATED(FS_UNLINK, got, rmdir(path));
    return got < 0 ? fail("cannot remove", path) : KR_OK;
}

bool fs_exists(const char *path)
{
    struct stat st;

    return lstat(path, &st) == 0;
}

kr_status fs_free_bytes(const char *path, uint64_t *bytes)
{
    struct statvfs v;

    if (statvfs(path, &v) != 0) return fail("cannot ask for free space", path);
    *bytes = (uint64_t)v.f_bavail * (uint64_t)v.f_frsize;
    return KR_OK;
}

/* ---- whole files -------------------------------------------------------------------- */

static kr_status read_fd(int fd, const char *path, char **text, size_t *bytes,
                         size_t most)
{
    uint64_t size;
    char *at = NULL;
    kr_status st;

    TRY(fs_size(fd, path, &size));
    if (size > most)
        return KR_FAIL(KR_ERR_DATA, "%s: %llu bytes, more than %zu", path,
                       (unsigned long long)size, most);
    TRY(mem_alloc(&at, (size_t)size + 1, 1, path));
    st = fs_pread(fd, path, at, (size_t)size, 0);
    if (st != KR_OK) {
        mem_free(at);
        return st;
    }
    *text = at;
    *bytes = (size_t)size;
    return KR_OK;
}

kr_status fs_read_all(const char *path, char **text, size_t *bytes, size_t max_bytes)
{
    kr_status st;
    int fd = -1;

    TRY(fs_open(&fd, path, O_RDONLY));
    st = read_fd(fd, path, text, bytes, max_bytes);
    close(fd);
    return st;
}

/* The folder a path lies in. */
static void folder_of(char out[FS_PATH], const char *path)
{
    char *slash;

    snprintf(out, FS_PATH, "%s", path);
    slash = strrchr(out, '/');
    if (!slash)
        snprintf(out, FS_PATH, ".");
    else
        slash[slash == out] = '\0';
}

kr_status fs_replace(const char *path, const void *from, size_t bytes)
{
    char temp[FS_PATH], folder[FS_PATH];
    kr_status st;
    int fd = -1;

    TRY(fs_path(temp, "%s.tmp.%d", path, (int)getpid()));
    folder_of(folder, path);
    TRY_OR(st, fs_open(&fd, temp, O_WRONLY | O_CREAT | O_TRUNC), done);
    TRY_OR(st, fs_pwrite(fd, temp, from, bytes, 0), done);
    TRY_OR(st, fs_fsync(fd, temp), done);
    st = fs_close(fd, temp);
    fd = -1;
    if (st != KR_OK) goto done;
    TRY_OR(st, fs_rename(temp, path), done);
    st = fs_fsync_dir(folder);
done:
    if (fd >= 0) close(fd);
    if (st != KR_OK) (void)unlink(temp);
    return st;
}

static int by_name(const void *a, const void *b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

static bool add_name(char ***names, size_t *count, const char *name)
{
    char **more = realloc(*names, (*count + 1) * sizeof **names);

    if (!more) return false;
    *names = more;
    more[*count] = strdup(name);
    return more[*count] && ++*count;
}

kr_status fs_list(const char *path, char ***names, size_t *count)
{
    DIR *dir = opendir(path);
    char **list = NULL;
    size_t n = 0;
    bool ok = true;

    if (!dir) return fail("cannot list", path);
    for (struct dirent *e; ok && (e = readdir(dir));)
        if (strcmp(e->d_name, ".") != 0 && strcmp(e->d_name, "..") != 0)
            ok = add_name(&list, &n, e->d_name);
    closedir(dir);
    if (!ok) {
        fs_free_names(list, n);
        return KR_FAIL(KR_ERR_MEM, "%s: no memory for its names", path);
    }
    if (n) qsort(list, n, sizeof *list, by_name);
    *names = list;
    *count = n;
    return KR_OK;
}

void fs_free_names(char **names, size_t count)
{
    for (size_t i = 0; i < count; i++)
        free(names[i]);
    free(names);
}

kr_status fs_map(const char *path, struct fs_map *out)
{
    uint64_t bytes;
    void *at = NULL;
    kr_status st;
    int fd = -1;

    TRY(fs_open(&fd, path, O_RDONLY));
    st = fs_size(fd, path, &bytes);
    if (st == KR_OK && bytes > 0 &&
        (at = mmap(NULL, (size_t)bytes, PROT_READ, MAP_SHARED, fd, 0)) == MAP_FAILED)
        st = fail("cannot map", path);
    close(fd);
    if (st == KR_OK) *out = (struct fs_map){ at, bytes };
    return st;
}

void fs_unmap(struct fs_map *m)
{
    if (m->at) munmap((void *)(uintptr_t)m->at, (size_t)m->bytes);
    *m = (struct fs_map){ 0 };
}

static kr_status copy_bytes(int in, const char *from, int out, const char *to)
{
    static const uint64_t piece = 1 << 16;
    char buf[1 << 16];
    uint64_t bytes = 0;

    TRY(fs_size(in, from, &bytes));
    for (uint64_t at = 0; at < bytes; at += piece) {
        size_t n = (size_t)(bytes - at < piece ? bytes - at : piece);

        TRY(fs_pread(in, from, buf, n, at));
        TRY(fs_pwrite(out, to, buf, n, at));
    }
    return fs_fsync(out, to);
}

kr_status fs_copy(const char *from, const char *to)
{
    int in = -1, out = -1;
    kr_status st, closed = KR_OK;

    TRY(fs_open(&in, from, O_RDONLY));
    st = fs_open(&out, to, O_WRONLY | O_CREAT | O_EXCL);
    if (st == KR_OK) {
        st = copy_bytes(in, from, out, to);
        closed = fs_close(out, to);
    }
    (void)fs_close(in, from);
    return st == KR_OK ? closed : st;
}

void fs_standard_open(void)
{
    for (int fd = 0; fd <= STDERR_FILENO; fd++)
        if (fcntl(fd, F_GETFD) < 0)
            (void)open("/dev/null", O_RDWR); /* takes the lowest */
}

kr_status fs_standard_flush(void)
{
    if (fflush(stdout) == 0 && !ferror(stdout)) return KR_OK;
    return KR_FAIL(KR_ERR_IO, "standard output: not all could be written");
}
