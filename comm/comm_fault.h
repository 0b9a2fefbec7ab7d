/*
 * comm_fault.h - faults of the network on request, for tests.  For comm/ itself.
 *
 * They strike queued collectives, the N-th counted from 1:
 *
 *   slow:MIB_PER_S  each one sleeps as long as its bytes take at this bandwidth
 *   delay:SECONDS   each one sleeps first
 *   fail:N          on every rank the N-th one fails with KR_ERR_COMM
 *   kill:N:RANK     SIGKILL of this rank just before its N-th one
 *   quit:N:RANK     this rank ends there, well, as far as its exit code says
 *   hang:N:RANK     this rank does not enter its N-th one, and gives up after the limit
 */
#ifndef COMM_FAULT_H
#define COMM_FAULT_H

#include "comm/backend.h"

enum comm_fault_kind {
    FAULT_NONE,
    FAULT_SLOW,
    FAULT_DELAY,
    FAULT_FAIL,
    FAULT_KILL,
    FAULT_QUIT,
    FAULT_HANG
};

struct comm_fault {
    enum comm_fault_kind kind;
    double value; /* MiB/s or seconds */
    int64_t at;   /* N */
    int64_t seen; /* queued collectives begun */
    int32_t rank;
};

/* NULL and "" are no fault.  KR_ERR_ARG: none of the above. */
kr_status comm_fault_parse(struct comm_fault *out, const char *text);

/* Call around each queued collective; `bytes` is what this one has sent. */
kr_status comm_fault_before(struct comm_fault *f, const struct comm_link *l);
void comm_fault_after(const struct comm_fault *f, double bytes);

#endif
