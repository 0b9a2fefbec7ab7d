/*
 * address.h - where the supervisor of a run is, and the token that proves who may talk to
 * it: RUN/.token, one line "ADDRESS PORT TOKEN", mode 0600, replaced atomically.
 *
 * Agents and commands read it from the file system that all nodes share, so neither is
 * ever on a command line or in an environment.
 */
#ifndef SCHED_ADDRESS_H
#define SCHED_ADDRESS_H

#include "scheduler/wire.h"

struct address {
    char host[64]; /* numeric, IPv4 or IPv6 */
    int port;
    struct wire_token token;
};

/* KR_ERR_IO: no supervisor has left one (not logged).  KR_ERR_DATA: the file is not one, or
 * others may read it; logged. */
kr_status address_read(struct address *out, const char *run);
kr_status address_write(const struct address *a, const char *run);
kr_status address_remove(const char *run);

/* A new token. */
kr_status address_token(struct wire_token *out);

#endif
