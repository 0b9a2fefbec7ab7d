/* t_brood.c - processes are found and ended whatever they are called, and no wait is endless. */
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/proc.h"
#include "scheduler/brood.h"
#include "scheduler/child.h"
#include "tests/check.h"

/* A child of that name, which sleeps. */
static pid_t sleeper(const char *name)
{
    int ready[2];
    char c;
    pid_t pid;

    if (pipe(ready) != 0 || (pid = fork()) < 0) abort();
    if (pid == 0) {
        prctl(PR_SET_NAME, name);
        if (write(ready[1], "!", 1) != 1) _exit(1);
        for (;;)
            pause();
    }
    if (read(ready[0], &c, 1) != 1) abort();
    close(ready[0]), close(ready[1]);
    return pid;
}

static void any_name_is_found_and_killed(void)
{
    static const char *const names[] = { "plain", "a\nb", ") R 1 (", "x) Z\n1 1", "" };
    int status;

    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        pid_t pid = sleeper(names[i]);
        char state = brood_state(pid);

        CHECK(state == 'S' || state == 'R');
        CHECK(proc_started(pid) > 0);
        CHECK_I64(brood_kill(), ==, 1);
        CHECK_I64(waitpid(pid, &status, 0), ==, pid);
        CHECK_I64(WTERMSIG(status), ==, SIGKILL);
        CHECK_I64(brood_kill(), ==, 0);
        CHECK_I64(proc_started(pid), ==, -1);
    }
}

static void *sleep_on(void *arg)
{
    for (;;)
        pause();
    return arg;
}

/* It looks like a zombie, and runs. */
static void a_process_without_its_first_thread_is_killed(void)
{
    pid_t pid = fork();
    pthread_t thread;
    int status, code;

    if (pid < 0) abort();
    if (pid == 0) {
        pthread_create(&thread, NULL, sleep_on, NULL);
        pthread_exit(NULL);
    }
    while (brood_state(pid) != 'Z')
        clock_sleep(0.01);
    CHECK(!brood_bury(&pid, &code));
    pid = 0;
    CHECK_I64(brood_kill(), ==, 1);
    while ((pid = waitpid(-1, &status, WNOHANG)) == 0)
        CHECK_I64(brood_kill(), <=, 1);
    CHECK(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
    CHECK_I64(brood_kill(), ==, 0);
}

static void the_dead_count_until_they_are_buried(void)
{
    pid_t pid = fork();
    int code;

    if (pid == 0) _exit(3);
    while (brood_state(pid) != 'Z')
        clock_sleep(0.01);
    CHECK_I64(brood_kill(), ==, 1);
    CHECK(brood_bury(&pid, &code));
    CHECK_I64(code, ==, 3);
    CHECK_I64(brood_kill(), ==, 0);
}

static void a_command_that_takes_too_long_is_killed(void)
{
    char *argv[] = { "sleep", "60", NULL };
    double begin = clock_now();
    pid_t pid;

    CHECK_I64(child_begin(argv, 2, &pid), ==, KR_OK);
    CHECK_I64(child_await(pid, 0.1), ==, 124);
    CHECK(clock_now() - begin < 2);
    CHECK_I64(proc_started(pid), ==, -1);
}

/* As if the kernel kept it for ever: nobody can ever bury this one. */
static void a_process_that_does_not_end_is_left(void)
{
    double begin = clock_now();
    pid_t pid = sleeper("gone");

    kill(pid, SIGKILL);
    waitpid(pid, NULL, 0);
    CHECK_I64(child_await(pid, 0.1), ==, 124);
    CHECK(clock_now() - begin < 10);
}

int main(void)
{
    RUN(any_name_is_found_and_killed);
    RUN(a_process_without_its_first_thread_is_killed);
    RUN(the_dead_count_until_they_are_buried);
    RUN(a_command_that_takes_too_long_is_killed);
    RUN(a_process_that_does_not_end_is_left);
    return check_done();
}
