/*
 * status.h - how every function of Kilorank reports failure.
 *
 * A function that can fail returns kr_status; results go to out-parameters, which
 * are written only on success.  Whoever first decides that something is an error
 * calls KR_FAIL, which logs one line.  Callers hand the code up with TRY and stay
 * silent, so each failure is one line in the log.
 */
#ifndef BASE_STATUS_H
#define BASE_STATUS_H

#ifdef __cplusplus
extern "C" {
#endif

/* clang-format off */
/*    name           code  text */
#define KR_STATUS_MAP(X)                                                \
    X(KR_OK,            0, "ok")                                        \
    X(KR_ERR_ARG,      -1, "invalid argument or setting")               \
    X(KR_ERR_MEM,      -2, "out of memory")                             \
    X(KR_ERR_IO,       -3, "file or file system error")                 \
    X(KR_ERR_DATA,     -4, "corrupt or incompatible data")              \
    X(KR_ERR_DEVICE,   -5, "device or kernel failure")                  \
    X(KR_ERR_COMM,     -6, "peer lost or collective failed")            \
    X(KR_ERR_NUMERIC,  -7, "non-finite loss or gradient")               \
    X(KR_ERR_BUSY,     -8, "held by another job")                       \
    X(KR_ERR_NO_CKPT,  -9, "checkpoints exist, but none is valid")
/* clang-format on */

typedef enum {
#define X(name, code, text) name = code,
    KR_STATUS_MAP(X)
#undef X
} kr_status;

/* "corrupt or incompatible data"; never NULL, also for numbers that are no status. */
const char *kr_status_text(kr_status s);

/* Log one error line and return s.  Use KR_FAIL: it knows the place. */
kr_status kr_fail(kr_status s, const char *file, int line, const char *fmt, ...)
    __attribute__((format(printf, 4, 5)));
#define KR_FAIL(s, ...) kr_fail((s), __FILE__, __LINE__, __VA_ARGS__)

#define TRY(call)                       \
    do {                                \
        kr_status try_ = (call);        \
        if (try_ != KR_OK) return try_; \
    } while (0)

#define TRY_OR(s, call, label)                   \
    do {                                         \
        if (((s) = (call)) != KR_OK) goto label; \
    } while (0)

#ifdef __cplusplus
}
#endif
#endif
