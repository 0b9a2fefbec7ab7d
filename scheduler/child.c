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

enum { TOO_LATE = 124 };
static const double kill_seconds =
    2; /* the kernel may keep it, in a file system that hangs */

static void become(char *const argv[], int output, int signal_at_our_death)
{
    prctl(PR_SET_PDEATHSIG, signal_at_our_death);
    dup2(open("/dev/null", O_RDONLY | O_CLOEXEC), 0);
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

/* Its code, or TOO_LATE. */
static int32_t wait_until(pid_t pid, double until)
{
    int32_t code;

    while (clock_now() <= until) {
        if (child_ended(pid, &code)) return code;
        clock_sleep(0.01);
    }
    return TOO_LATE;
}

int32_t child_await(pid_t pid, double seconds)
{
    int32_t code = wait_until(pid, clock_now() + seconds);

    if (code != TOO_LATE) return code;
    kill(pid, SIGKILL);
    (void)wait_until(pid, clock_now() + kill_seconds);
    return TOO_LATE;
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
