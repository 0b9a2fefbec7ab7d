/*
 * fs.h - files, through one door.
 *
 * Everything that must survive a crash is written through these calls.  Each fails with
 * KR_ERR_IO and one line that names the operation, the path and the reason; EINTR and
 * short transfers are handled inside.  Any thread may call.
 *
 * For tests the environment variable KILORANK_FS_FAULT makes the real calls fail:
 *
 *   OP:N:ERRNO   the N-th call (1, 2, ...) of OP fails, once   e.g. fsync:2:EIO
 *   OP:N+:ERRNO  the N-th and every later one fail             e.g. write:1+:ENOSPC
 *   OP:N:crash   the process kills itself with SIGKILL just before the N-th call
 *   OP:N:after   ... just after the N-th call
 *
 * OP is open, write, fsync, rename, unlink, mkdir, close, or any (counts all of them).
 * Several are joined with commas.
 */
#ifndef BASE_FS_H
#define BASE_FS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/status.h"

enum { FS_PATH = 4096 };

/* Join into out[FS_PATH].  KR_ERR_ARG: longer than FS_PATH - 1. */
kr_status fs_path(char out[FS_PATH], const char *fmt, ...)
    __attribute__((format(printf, 2, 3)));

/* Open; flags as open(2); new files get mode 0600.  *fd is closed by the caller. */
kr_status fs_open(int *fd, const char *path, int flags);
kr_status fs_close(int fd, const char *path);
kr_status fs_pwrite(int fd, const char *path, const void *from, size_t bytes,
                    uint64_t at);
/* KR_ERR_DATA when the file ends before `bytes`. */
kr_status fs_pread(int fd, const char *path, void *to, size_t bytes, uint64_t at);
kr_status fs_fsync(int fd, const char *path);
/* Begin to write these bytes to the disk, so that a later fsync has less to wait for.  A
 * hint: its errors are the fsync's. */
void fs_start_flush(int fd, uint64_t at, size_t bytes);
kr_status fs_size(int fd, const char *path, uint64_t *bytes);

/* fsync a folder, so that names created or renamed in it survive a power loss. */
kr_status fs_fsync_dir(const char *path);
kr_status fs_rename(const char *from, const char *to);
kr_status fs_unlink(const char *path);      /* a missing file is fine */
kr_status fs_mkdir(const char *path);       /* one level; existing: KR_ERR_IO */
kr_status fs_mkdirs(const char *path);      /* like mkdir -p, mode 0700 */
kr_status fs_mkdirs_of(const char *path);   /* for the folder that path lies in */
kr_status fs_remove_tree(const char *path); /* never follows links */
bool fs_exists(const char *path);
kr_status fs_free_bytes(const char *path, uint64_t *bytes); /* for this user */

/* Whole small file; *text is NUL-terminated, *bytes excludes the NUL; caller frees.
 * KR_ERR_DATA: larger than max_bytes. */
kr_status fs_read_all(const char *path, char **text, size_t *bytes, size_t max_bytes);

/* Replace path by these bytes so that a crash leaves the old or the new contents:
 * temporary name beside it, write, fsync, rename, fsync of the folder. */
kr_status fs_replace(const char *path, const void *from, size_t bytes);

/* Copy a file, durably; the folder's entry is the caller's.  KR_ERR_IO: `to` is there. */
kr_status fs_copy(const char *from, const char *to);

/* Standard input, output and error that were closed become /dev/null, so that no file is
 * opened in their place and written to by whoever prints.  Once, at the start. */
void fs_standard_open(void);
/* Write out what was printed.  KR_ERR_IO: not all of it could be. */
kr_status fs_standard_flush(void);

/* Names in a folder, sorted, without . and ..; caller frees with fs_free_names. */
kr_status fs_list(const char *path, char ***names, size_t *count);
void fs_free_names(char **names, size_t count);

/* A read-only memory map of a whole file.  at == NULL when bytes == 0. */
struct fs_map {
    const void *at;
    uint64_t bytes;
};
kr_status fs_map(const char *path, struct fs_map *out);
void fs_unmap(struct fs_map *m); /* an empty one is fine */

#endif
