/* comm_fault.c - works on any back end, since it stands before and behind its calls. */
#include "comm/comm_fault.h"

#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/log.h"

enum shape { REAL, NUMBER, NUMBER_AND_RANK };

static const struct {
    const char *name;
    enum comm_fault_kind kind;
    enum shape shape;
} faults[] = {
    { "slow:", FAULT_SLOW, REAL },
    { "delay:", FAULT_DELAY, REAL },
    { "fail:", FAULT_FAIL, NUMBER },
    { "kill:", FAULT_KILL, NUMBER_AND_RANK },
    { "quit:", FAULT_QUIT, NUMBER_AND_RANK },
    { "hang:", FAULT_HANG, NUMBER_AND_RANK },
};

/* The arguments behind the colon; false: not what the shape asks for. */
static bool read_arguments(struct comm_fault *f, enum shape shape, const char *text)
{
    char *end = NULL;

    if (shape == REAL) {
        f->value = strtod(text, &end);
        return end != text && *end == '\0' && f->value > 0 && f->value < 1e9;
    }
    f->at = strtoll(text, &end, 10);
    if (end == text || f->at < 1) return false;
    if (shape == NUMBER) return *end == '\0';
    if (*end != ':') return false;
    text = end + 1;
    f->rank = (int32_t)strtol(text, &end, 10);
    return end != text && *end == '\0' && f->rank >= 0;
}

kr_status comm_fault_parse(struct comm_fault *out, const char *text)
{
    *out = (struct comm_fault){ 0 };
    if (!text || !*text) return KR_OK;
    for (size_t i = 0; i < sizeof faults / sizeof *faults; i++) {
        size_t len = strlen(faults[i].name);
        struct comm_fault f = { .kind = faults[i].kind };

        if (strncmp(text, faults[i].name, len) != 0) continue;
        if (!read_arguments(&f, faults[i].shape, text + len)) break;
        *out = f;
        return KR_OK;
    }
    return KR_FAIL(KR_ERR_ARG,
                   "comm fault \"%s\": want slow:MIB_PER_S, delay:SECONDS, fail:N, "
                   "kill:N:RANK, quit:N:RANK or hang:N:RANK",
                   text);
}

static kr_status strike(const struct comm_fault *f, const struct comm_link *l)
{
    if (f->kind == FAULT_FAIL)
        return KR_FAIL(KR_ERR_COMM, "fault: collective %llu (%s) fails on request",
                       (unsigned long long)l->number, l->name);
    if (l->rank != f->rank) return KR_OK;
    LOG_WARNING("fault: %s in collective %llu (%s)",
                f->kind == FAULT_HANG ? "hanging" : "ended",
                (unsigned long long)l->number, l->name);
    if (f->kind == FAULT_KILL) kill(getpid(), SIGKILL);
    if (f->kind == FAULT_QUIT) _exit(0);
    clock_sleep(l->limit);
    return KR_FAIL(KR_ERR_COMM, "fault: collective %llu (%s) hung for %g s",
                   (unsigned long long)l->number, l->name, l->limit);
}

kr_status comm_fault_before(struct comm_fault *f, const struct comm_link *l)
{
    f->seen++;
    if (f->kind == FAULT_DELAY) clock_sleep(f->value);
    return f->at > 0 && f->seen == f->at ? strike(f, l) : KR_OK;
}

void comm_fault_after(const struct comm_fault *f, double bytes)
{
    if (f->kind == FAULT_SLOW) clock_sleep(bytes / (f->value * 1024 * 1024));
}
