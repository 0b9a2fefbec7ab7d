/*
 * child.h - a test program starts itself again, with a variable set, and looks at the end.
 *
 * What a process reads from its environment once (faults, log level) or does not survive
 * (a crash) is tried in a child of its own.  main hands its arguments to child_main first;
 * in a child that runs the named action and never returns.
 */
#ifndef TESTS_CHILD_H
#define TESTS_CHILD_H

#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

struct child_action {
    const char *name; /* NULL ends the list */
    int (*run)(char **args);
};

struct child_end {
    int status; /* exit status, -1: killed */
    int signal;
    size_t bytes;
    char said[1 << 19]; /* stderr */
};

static inline void child_main(const struct child_action *actions, int argc, char **argv)
{
    if (argc < 2) return;
    for (; actions->name; actions++)
        if (strcmp(actions->name, argv[1]) == 0) exit(actions->run(argv + 2));
    exit(99);
}

/* Run this program as `program ACTION ARG` with variable = value (NULL: not set). */
static inline const struct child_end *child_run(const char *variable, const char *value,
                                                const char *action, const char *arg)
{
    static struct child_end end;
    ssize_t got;
    int fds[2], status;
    pid_t pid;

    end.bytes = 0;
    if (pipe(fds) != 0 || (pid = fork()) < 0) abort();
    if (pid == 0) {
        if (value ? setenv(variable, value, 1) : unsetenv(variable)) _exit(98);
        dup2(fds[1], STDERR_FILENO);
        close(fds[0]);
        close(fds[1]);
        execl("/proc/self/exe", "child", action, arg, (char *)NULL);
        _exit(98);
    }
    close(fds[1]);
    while ((got = read(fds[0], end.said + end.bytes, sizeof end.said - 1 - end.bytes)) >
           0)
        end.bytes += (size_t)got;
    close(fds[0]);
    end.said[end.bytes] = '\0';
    if (waitpid(pid, &status, 0) != pid) abort();
    end.status = WIFEXITED(status) ? WEXITSTATUS(status) : -1;
    end.signal = WIFSIGNALED(status) ? WTERMSIG(status) : 0;
    return &end;
}

static inline int child_lines(const struct child_end *end)
{
    int lines = 0;

    for (size_t i = 0; i < end->bytes; i++)
        lines += end->said[i] == '\n';
    return lines;
}

#endif
