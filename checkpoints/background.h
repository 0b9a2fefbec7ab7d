/* background.h - one thread that does one thing while training goes on. */
#ifndef CKPT_BACKGROUND_H
#define CKPT_BACKGROUND_H

#include <pthread.h>
#include <stdbool.h>

struct background {
    pthread_t thread;
    bool running;
};

/* Signals stay with the thread that trains.  Without a thread to be had the work is done
 * here and now. */
void background_start(struct background *b, void *(*work)(void *), void *arg);
void background_join(struct background *b); /* fine when nothing runs */

#endif
