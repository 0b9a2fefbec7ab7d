/*
 * client.h - a command's connection to the supervisor of a run: blocking, with a limit on
 * every wait.
 */
#ifndef SCHED_CLIENT_H
#define SCHED_CLIENT_H

#include "scheduler/wire.h"

struct client; /* opaque */

/* Find it through RUN/.token and connect.  KR_ERR_COMM (not logged): nobody is there. */
kr_status client_open(struct client **out, const char *run, double seconds);
void client_close(struct client *c); /* NULL is fine */

kr_status client_send(struct client *c, const struct wire_message *m);

/* The next message; its lists hold until the next call.  KR_ERR_COMM (not logged): the
 * connection is over, or nothing came in time. */
kr_status client_receive(struct client *c, const struct wire_message **m, double seconds);

/* ASK `text`; TELLs are handed to `tell`, until BYE, whose code is *code. */
kr_status client_ask(struct client *c, const char *text, double seconds,
                     void (*tell)(const char *text), int32_t *code);

/* `kilorank status`, `kilorank stop`, and what Open MPI starts in place of ssh. */
int status_main(int argc, char **argv);
int stop_main(int argc, char **argv);
int rsh_main(int argc, char **argv);

#endif
