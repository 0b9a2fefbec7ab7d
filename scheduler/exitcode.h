/*
 * exitcode.h - what the exit code of a worker, or of its supervisor, means.
 *
 * Contract between the trainer and whoever starts it (a supervisor, a batch script); the
 * supervisor ends with the same codes.
 * `retry` says what to do with the same command line:
 *   NO         do not start it again unchanged
 *   HERE       start it again, on the same nodes if they are well
 *   ELSEWHERE  start it again on other nodes
 */
#ifndef SCHED_EXITCODE_H
#define SCHED_EXITCODE_H

enum exit_retry { EXIT_RETRY_NO, EXIT_RETRY_HERE, EXIT_RETRY_ELSEWHERE };

/* clang-format off */
/*    name               code  retry                  meaning */
#define EXIT_CODE_MAP(X)                                                                 \
    X(EXIT_DONE,            0, EXIT_RETRY_NO,         "done")                            \
    X(EXIT_FAILED,          1, EXIT_RETRY_HERE,       "failed: the last error line says why") \
    X(EXIT_USAGE,           2, EXIT_RETRY_NO,         "bad command line, setting or input") \
    X(EXIT_NO_CHECKPOINT,   3, EXIT_RETRY_NO,         "checkpoints exist, but none is valid") \
    X(EXIT_BUSY,            4, EXIT_RETRY_NO,         "another job holds the run directory") \
    X(EXIT_NUMERIC,         5, EXIT_RETRY_HERE,       "loss or gradient is not finite")  \
    X(EXIT_IO,              6, EXIT_RETRY_HERE,       "a file could not be read or written") \
    X(EXIT_DEVICE,          7, EXIT_RETRY_ELSEWHERE,  "device failure")                  \
    X(EXIT_COMM,            8, EXIT_RETRY_HERE,       "a peer was lost")                 \
    X(EXIT_CRASH_LOOP,      9, EXIT_RETRY_NO,         "supervisor: several attempts brought no new step") \
    X(EXIT_NO_NODES,       10, EXIT_RETRY_ELSEWHERE,  "supervisor: too few nodes are left") \
    X(EXIT_REQUEUE,        75, EXIT_RETRY_HERE,       "stopped on request, state saved: start again to go on")
/* clang-format on */

enum exit_code {
#define X(name, code, retry, text) name = code,
    EXIT_CODE_MAP(X)
#undef X
};

#endif
