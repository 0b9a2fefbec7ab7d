/* stop.c - handlers only set a flag; the loop asks once per step. */
#include "trainer/run/stop.h"

#include <signal.h>
#include <stddef.h>
#include <unistd.h>

#include "base/fs.h"

static volatile sig_atomic_t signalled;

static void on_signal(int number)
{
    if (number == SIGINT && signalled) {
        signal(SIGINT, SIG_DFL);
        raise(SIGINT);
    }
    signalled = 1;
}

void stop_setup(void)
{
    static const int numbers[] = { SIGTERM, SIGUSR1, SIGINT };
    struct sigaction act = { .sa_handler = on_signal, .sa_flags = SA_RESTART };

    for (size_t i = 0; i < sizeof numbers / sizeof *numbers; i++)
        sigaction(numbers[i], &act, NULL);
    signal(SIGPIPE, SIG_IGN);
}

enum stop_wish stop_asked(const char *run)
{
    char path[FS_PATH];

    if (signalled) return STOP_REQUEUE;
    if (run && fs_path(path, "%s/stop", run) == KR_OK && fs_exists(path))
        return STOP_DONE;
    return STOP_NO;
}

void stop_forget(const char *run)
{
    char path[FS_PATH];

    if (fs_path(path, "%s/stop", run) == KR_OK) (void)fs_unlink(path);
}
