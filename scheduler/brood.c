/* brood.c - fork, and a walk over /proc. */
#include "scheduler/brood.h"

#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/proc.h"

enum { BROOD_MAX = 65536, CANNOT_START = 127 };

void brood_adopt(void) { prctl(PR_SET_CHILD_SUBREAPER, 1); }

/* In the child; never returns. */
__attribute__((noreturn)) static void become(char *const argv[], char *const variables[],
                                             int output, bool lives_on, pid_t parent)
{
    int null = open("/dev/null", O_RDWR);
    sigset_t none;

    if (!lives_on) prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (!lives_on && getppid() != parent) _exit(CANNOT_START); /* it died before */
    setsid();
    for (int s = 1; s < NSIG; s++)
        signal(s, SIG_DFL);
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);
    dup2(null, STDIN_FILENO);
    dup2(output < 0 ? null : output, STDOUT_FILENO);
    dup2(output < 0 ? null : output, STDERR_FILENO);
    for (int i = 0; variables && variables[i]; i++)
        putenv(variables[i]);
    execvp(argv[0], argv);
    dprintf(STDERR_FILENO, "kilorank: error: cannot start %s: %s\n", argv[0],
            strerror(errno));
    _exit(CANNOT_START);
}

kr_status brood_start(char *const argv[], char *const variables[], int output,
                      bool lives_on, pid_t *pid)
{
    pid_t parent = getpid(), child = fork();

    if (child < 0)
        return KR_FAIL(KR_ERR_IO, "cannot start %s: %s", argv[0], strerror(errno));
    if (child == 0) become(argv, variables, output, lives_on, parent);
    *pid = child;
    return KR_OK;
}

bool brood_bury(pid_t *pid, int *code)
{
    int status;

    do
        *pid = waitpid(-1, &status, WNOHANG);
    while (*pid < 0 && errno == EINTR);
    if (*pid <= 0) return false;
    *code = WIFSIGNALED(status) ? 128 + WTERMSIG(status) : WEXITSTATUS(status);
    return true;
}

/* ---- descendants -------------------------------------------------------------------- */

struct process {
    pid_t pid, parent;
    char state;
    bool is_ours;
};

static bool read_process(int64_t pid, struct process *out)
{
    char text[PROC_STAT], state;
    const char *at = proc_fields(pid, text);
    int parent;

    if (!at || sscanf(at, "%c %d", &state, &parent) != 2) return false;
    *out = (struct process){ (pid_t)pid, parent, state, false };
    return true;
}

char brood_state(int64_t pid)
{
    struct process p;

    return pid > 0 && read_process(pid, &p) ? p.state : '\0';
}

static int list_processes(struct process *all)
{
    DIR *d = opendir("/proc");
    int count = 0;

    for (struct dirent *e; d && (e = readdir(d)) && count < BROOD_MAX;)
        if (isdigit((unsigned char)e->d_name[0]))
            count += read_process(atoi(e->d_name), &all[count]);
    if (d) closedir(d);
    return count;
}

static int ascending(const void *a, const void *b)
{
    return ((const struct process *)a)->pid - ((const struct process *)b)->pid;
}

static bool is_ours(const struct process *all, int count, pid_t pid, pid_t self)
{
    struct process key = { .pid = pid }, *found;

    if (pid == self) return true;
    found = bsearch(&key, all, (size_t)count, sizeof *all, ascending);
    return found && found->is_ours;
}

int brood_kill(void)
{
    static struct process all[BROOD_MAX];
    int count = list_processes(all), living = 0;
    pid_t self = getpid();
    bool grew = true;

    qsort(all, (size_t)count, sizeof *all, ascending);
    while (grew) { /* once per generation of descendants */
        grew = false;
        for (int i = 0; i < count; i++) {
            if (all[i].is_ours || !is_ours(all, count, all[i].parent, self)) continue;
            all[i].is_ours = grew = true;
        }
    }
    for (int i = 0; i < count; i++) {
        if (!all[i].is_ours) continue;
        kill(all[i].pid, SIGKILL);
        living++;
    }
    return living;
}
