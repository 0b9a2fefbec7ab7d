/* status.c - texts of the codes. */
#include "base/status.h"

#include <stdarg.h>

#include "base/log.h"

const char *kr_status_text(kr_status s)
{
    switch (s) {
#define X(name, code, text) \
    case name: return text;
        KR_STATUS_MAP(X)
#undef X
    }
    return "unknown status";
}

kr_status kr_fail(kr_status s, const char *file, int line, const char *fmt, ...)
{
    va_list ap;

    va_start(ap, fmt);
    log_vline(LOG_ERROR, file, line, fmt, ap);
    va_end(ap);
    return s;
}
