/* fs_fault.h - faults that KILORANK_FS_FAULT injects into the calls of fs.h; for fs.c. */
#ifndef BASE_FS_FAULT_H
#define BASE_FS_FAULT_H

#include <stdbool.h>

enum fs_op {
    FS_OPEN,
    FS_WRITE,
    FS_FSYNC,
    FS_RENAME,
    FS_UNLINK,
    FS_MKDIR,
    FS_CLOSE,
    FS_ANY
};

/* Before a call of op: the errno it is to fail with, or 0.  *after: the process is to kill
 * itself when the call is done.  Counts the calls; any thread. */
int fs_fault_before(enum fs_op op, bool *after);

#endif
