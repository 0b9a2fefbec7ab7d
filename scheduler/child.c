/* child.c - fork, exec, and looks instead of waits. */
#include "scheduler/child.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/fs.h"
#include "base/mem.h"

static void become(char *const argv[], int output, int signal_at_our_death)
{
    prctl(PR_SET_PDEATHSIG, signal_at_our_death);
    dup2(open("/dev/null", O_RDONLY), 0);
    dup2(output, 1);
    dup2(output, 2);
    execvp(argv[0], argv);
    _exit(127);
}

kr_status child_begin(char *const argv[], int output, pid_t *pid)
{
    pid_t child = fork();

    if (child == 0) become(argv, output, SIGTERM);
    if (child < 0) return KR_FAIL(KR_ERR_DEVICE, "cannot fork: %s", strerror(errno));
    *pid = child;
    return KR_OK;
}

bool child_ended(pid_t pid, int32_t *code)
{
    int status;

    if (waitpid(pid, &status, WNOHANG) != pid) return false;
    *code = WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
    return true;
}

int32_t child_await(pid_t pid, double seconds)
{
    double until = clock_now() + seconds;
    int32_t code = 124;

    while (!child_ended(pid, &code)) {
        if (clock_now() > until) kill(pid, SIGKILL);
        clock_sleep(0.01);
    }
    return clock_now() > until ? 124 : code;
}

/* Its output as a file, so that no pipe can fill up. */
static bool run_into(char *const argv[], const char *file, double seconds)
{
    pid_t pid = 0;
    int fd;
    bool fine;

    if (fs_open(&fd, file, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC) != KR_OK) return false;
    fine = child_begin(argv, fd, &pid) == KR_OK && child_await(pid, seconds) == 0;
    close(fd);
    return fine;
}

bool child_answer(char *const argv[], const char *file, double seconds, char *out,
                  size_t size)
{
    char *text = NULL;
    size_t bytes;

    if (!run_into(argv, file, seconds) ||
        fs_read_all(file, &text, &bytes, size - 1) != KR_OK)
        return false;
    memcpy(out, text, bytes);
    out[bytes] = '\0';
    mem_free(text);
    return bytes > 0;
}
