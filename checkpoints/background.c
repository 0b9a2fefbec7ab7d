/* background.c - start with all signals blocked, join. */
#include "checkpoints/background.h"

#include <signal.h>

void background_start(struct background *b, void *(*work)(void *), void *arg)
{
    sigset_t all, old;

    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &old);
    b->running = pthread_create(&b->thread, NULL, work, arg) == 0;
    pthread_sigmask(SIG_SETMASK, &old, NULL);
    if (!b->running) (void)work(arg);
}

void background_join(struct background *b)
{
    if (b->running) pthread_join(b->thread, NULL);
    b->running = false;
}
