/* t_lease.c - one writer at a time, whoever died and whatever the clocks say. */
#include <fcntl.h>
#include <signal.h>
#include <sys/syscall.h>
#include <time.h>

#include "base/clock.h"
#include "base/log.h"
#include "checkpoints/lease.h"
#include "tests/unit/rig_run.h"

/* A wall clock that was set an hour ahead; the monotonic one is as it is. */
int clock_gettime(clockid_t clock, struct timespec *out)
{
    int got = (int)syscall(SYS_clock_gettime, clock, out);

    if (clock == CLOCK_REALTIME && getenv("T_CKPT_HOUR_AHEAD")) out->tv_sec += 3600;
    return got;
}

/* ---- the lease ------------------------------------------------------------------------ */

static char said[4096];

static void listen_in(enum log_level level, const char *text, void *arg)
{
    (void)level, (void)arg;
    snprintf(said + strlen(said), sizeof said - strlen(said), "%s\n", text);
}

/* Wait until the other process holds the lease. */
static bool holds(const char *run, pid_t pid)
{
    char path[FS_PATH], want[32], *text;
    size_t bytes;

    rig_must(fs_path(path, "%s/lease.json", run));
    snprintf(want, sizeof want, "\"pid\": %d,", (int)pid);
    for (int i = 0; i < 500; i++, clock_sleep(0.01)) {
        bool there;

        if (!fs_exists(path) || fs_read_all(path, &text, &bytes, 4096) != KR_OK) continue;
        there = strstr(text, want) != NULL;
        mem_free(text);
        if (there) return true;
    }
    return false;
}

static void the_second_is_told_who_holds_it_and_takes_over_from_the_dead(void)
{
    char run[FS_PATH], pid_text[32];
    struct rig r;
    struct ckpt *k = NULL;
    double begin;
    pid_t pid;

    new_run(run);
    rig_must(fs_mkdirs(run));
    pid = start("hold", run, "", "", NULL);
    CHECK(holds(run, pid));
    open_rig(&r);
    said[0] = '\0';
    log_capture(listen_in, NULL);
    log_mute(false);
    CHECK_I64(open_run(&k, &r, run, 2, false), ==, KR_ERR_BUSY);
    log_mute(true);
    log_capture(NULL, NULL);
    snprintf(pid_text, sizeof pid_text, "process %d on ", (int)pid);
    CHECK(strstr(said, pid_text) != NULL);
    kill(pid, SIGKILL);
    CHECK_I64(ended(pid), ==, 1000 + SIGKILL);
    begin = clock_now();
    CHECK_I64(open_run(&k, &r, run, 2, false), ==, KR_OK);
    CHECK(clock_now() - begin < 5); /* watching takes 6 s */
    CHECK_I64(ckpt_generation(k), ==, 2);
    ckpt_close(k);
    close_rig(&r);
}

/* Also when nothing was saved and the lease was given back in order. */
static void generations_only_grow(void)
{
    char run[FS_PATH];
    struct lease *l;

    new_run(run);
    rig_must(fs_mkdirs(run));
    for (int64_t want = 6; want < 10; want++) {
        CHECK_I64(lease_take(&l, run, 5), ==, KR_OK);
        CHECK_I64(lease_generation(l), ==, want);
        lease_give_back(l);
    }
}

/* host "": given back. */
static void put_lease_of(const char *run, const char *host, int64_t generation,
                         int64_t renewals)
{
    char path[FS_PATH], text[256];
    int fd = -1, n;

    n = snprintf(text, sizeof text,
                 "{\"host\": \"%s\", \"pid\": 5, \"started\": 7, \"job\": \"99\", "
                 "\"generation\": %" PRId64 ", \"renewals\": %" PRId64 "}\n",
                 host, generation, renewals);
    rig_must(fs_path(path, "%s/lease.json", run));
    fd = open(path, O_RDWR | O_CREAT, 0600);
    if (fd < 0 || pwrite(fd, text, (size_t)n, 0) != n || ftruncate(fd, n) != 0)
        rig_must(KR_ERR_IO);
    close(fd);
}

static void put_lease(const char *run, int64_t generation, int64_t renewals)
{
    put_lease_of(run, "elsewhere", generation, renewals);
}

/* A job elsewhere took over while we were away: we do not commit, and our renewals do not
 * write over its lease. */
static void a_zombie_does_not_commit(void)
{
    char run[FS_PATH], path[FS_PATH], *text;
    size_t bytes;
    struct rig r;
    struct ckpt *k;

    new_run(run);
    open_rig(&r);
    CHECK_I64(open_run(&k, &r, run, 2, false), ==, KR_OK);
    CHECK(save_one(k, &r, 10));
    put_lease(run, 50, 0);
    CHECK(!save_one(k, &r, 20));
    clock_sleep(2.5); /* a renewal has come and gone */
    CHECK(!save_one(k, &r, 30));
    rig_must(fs_path(path, "%s/lease.json", run));
    rig_must(fs_read_all(path, &text, &bytes, 4096));
    CHECK(strstr(text, "elsewhere") != NULL);
    mem_free(text);
    ckpt_close(k);
    close_rig(&r);
    CHECK_I64(newest(run, true), ==, 10);
    rig_must(fs_read_all(path, &text, &bytes, 4096));
    CHECK(strstr(text, "elsewhere") != NULL);
    mem_free(text);
}

/* Who took over has ended in order before we woke: a renewal does not bring us back. */
static void a_zombie_that_wakes_after_its_heir_does_not_commit(void)
{
    char run[FS_PATH];
    struct lease *l;

    new_run(run);
    rig_must(fs_mkdirs(run));
    CHECK_I64(lease_take(&l, run, 0), ==, KR_OK);
    put_lease_of(run, "", 50, 0);
    clock_sleep(2.5); /* a renewal has come and gone */
    CHECK_I64(lease_check(l), ==, KR_ERR_BUSY);
    lease_give_back(l);
    CHECK_I64(lease_take(&l, run, 0), ==, KR_OK);
    CHECK_I64(lease_generation(l), ==, 51);
    lease_give_back(l);
}

/* Another host's lease: only its counter tells whether it lives, not its lock, which a
 * host that was stopped or cut off keeps. */
static void a_lease_of_another_host_is_watched(void)
{
    char dead[FS_PATH], live[FS_PATH], still[FS_PATH];
    struct lease *l = NULL;
    double begin = clock_now();
    pid_t pid, alive, stopped, heir;

    new_run(dead);
    new_run(live);
    new_run(still);
    rig_must(fs_mkdirs(dead));
    rig_must(fs_mkdirs(live));
    rig_must(fs_mkdirs(still));
    put_lease(dead, 4, 17);
    put_lease(live, 4, 17);
    stopped = start("hold", still, "", "", NULL);
    CHECK(holds(still, stopped));
    kill(stopped, SIGSTOP);
    put_lease(still, 4, 17);
    pid = start("take", dead, "", "", NULL); /* all at once: each takes 6 s */
    heir = start("take", still, "", "", NULL);
    if ((alive = fork()) == 0) {
        for (int i = 0; i < 10; i++, clock_sleep(1))
            put_lease(live, 4, 18 + i);
        _exit(0);
    }
    CHECK_I64(lease_take(&l, live, 0), ==, KR_ERR_BUSY);
    CHECK_I64(ended(pid), ==, 5); /* the generation it got */
    CHECK_I64(ended(heir), ==, 5);
    kill(stopped, SIGKILL);
    (void)ended(stopped);
    CHECK(clock_now() - begin >= 3 * 2);
    kill(alive, SIGKILL);
    (void)ended(alive);
}

/* The counter goes on although the wall clock jumped. */
/* Its host was lost: nobody can ask whether it lives, but its supervisor has decided. */
static void a_later_start_by_the_supervisor_waits_for_nobody(void)
{
    static const struct {
        const char *start;
        bool is_quick;
    } cases[] = { { "3", true }, { "2", false } };

    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char run[FS_PATH], path[FS_PATH];
        static const char text[] =
            "{\"host\": \"elsewhere\", \"pid\": 7, \"started\": 1, \"job\": \"\", "
            "\"generation\": 4, \"renewals\": 9, \"start\": 2}\n";
        struct lease *l;
        double begin = clock_now();

        new_run(run);
        rig_must(fs_mkdirs(run));
        rig_must(fs_path(path, "%s/lease.json", run));
        rig_must(fs_replace(path, text, strlen(text)));
        setenv("KILORANK_GENERATION", cases[i].start, 1);
        CHECK_I64(lease_take(&l, run, 0), ==, KR_OK);
        CHECK_I64(lease_generation(l), ==, 5);
        CHECK((clock_now() - begin < 5) == cases[i].is_quick);
        lease_give_back(l);
        unsetenv("KILORANK_GENERATION");
    }
}

static void wall_time_does_not_matter(void)
{
    char run[FS_PATH], path[FS_PATH], *text;
    bool renewed = false;
    struct lease *l;
    size_t bytes;

    new_run(run);
    rig_must(fs_mkdirs(run));
    setenv("T_CKPT_HOUR_AHEAD", "1", 1);
    CHECK_I64(lease_take(&l, run, 0), ==, KR_OK);
    rig_must(fs_path(path, "%s/lease.json", run));
    for (int i = 0; i < 1000 && !renewed; i++, clock_sleep(0.02)) {
        if (fs_read_all(path, &text, &bytes, 4096) != KR_OK) continue;
        renewed = strstr(text, "\"renewals\": 1,") != NULL;
        mem_free(text);
    }
    CHECK(renewed);
    unsetenv("T_CKPT_HOUR_AHEAD");
    lease_give_back(l);
}

/* A container may have no /proc of its own, so that no process there has a start time. */
static void without_proc_a_lease_is_ours_all_the_same(void)
{
    char run[FS_PATH], self[FS_PATH] = "", command[3 * FS_PATH];

    new_run(run);
    rig_must(fs_mkdirs(run));
    CHECK(readlink("/proc/self/exe", self, sizeof self - 1) > 0);
    if (system("unshare -m mount -t tmpfs none /proc 2>/dev/null") != 0) {
        printf("# mount namespaces cannot be had here\n");
        return;
    }
    snprintf(
        command, sizeof command,
        "unshare -m sh -c 'mount -t tmpfs none /proc && exec \"%s\" keep \"%s\" 0 0'",
        self, run);
    CHECK_I64(WEXITSTATUS(system(command)), ==, 0);
}

/* ---- main ----------------------------------------------------------------------------- */

static int hold(const char *run)
{
    struct lease *l;

    if (lease_take(&l, run, 0) != KR_OK) return REFUSED;
    for (;;)
        pause();
}

static int take(const char *run)
{
    struct lease *l;
    int generation;

    if (lease_take(&l, run, 0) != KR_OK) return REFUSED;
    generation = (int)lease_generation(l);
    lease_give_back(l);
    return generation;
}

/* Over a renewal; 0 if it is still ours. */
static int keep(const char *run)
{
    struct lease *l;
    kr_status st;

    if (lease_take(&l, run, 0) != KR_OK) return REFUSED;
    clock_sleep(2.5);
    st = lease_check(l);
    lease_give_back(l);
    return st != KR_OK;
}

static int act(const char *what, const char *run)
{
    return strcmp(what, "hold") == 0   ? hold(run)
           : strcmp(what, "keep") == 0 ? keep(run)
                                       : take(run);
}

/* Cases mostly wait for renewals: all at once, each in a process and a folder of its own. */
#define CASE(fn) \
    {            \
        fn, #fn  \
    }
static const struct {
    void (*run)(void);
    const char *name;
} cases[] = {
    CASE(the_second_is_told_who_holds_it_and_takes_over_from_the_dead),
    CASE(generations_only_grow),
    CASE(a_zombie_does_not_commit),
    CASE(a_zombie_that_wakes_after_its_heir_does_not_commit),
    CASE(a_lease_of_another_host_is_watched),
    CASE(a_later_start_by_the_supervisor_waits_for_nobody),
    CASE(wall_time_does_not_matter),
    CASE(without_proc_a_lease_is_ours_all_the_same),
};
enum { CASES = sizeof cases / sizeof *cases };

static pid_t start_case(int i)
{
    char own[FS_PATH];
    pid_t pid;

    fflush(stdout);
    if ((pid = fork()) != 0) return pid;
    rig_must(fs_path(own, "%s/case-%d", root, i));
    rig_must(fs_mkdirs(own));
    snprintf(root, sizeof root, "%s", own);
    cases[i].run();
    fflush(stdout);
    _exit(check_bad_here != 0);
}

int main(int argc, char **argv)
{
    pid_t pids[CASES];

    log_mute(getenv("T_CKPT_LOUD") == NULL);
    if (argc == 5) return act(argv[1], argv[2]);
    rig_folder(root, "t_lease");
    for (int i = 0; i < CASES; i++)
        pids[i] = start_case(i);
    for (int i = 0; i < CASES; i++) {
        bool good = ended(pids[i]) == 0;

        printf("%sok %d - %s\n", good ? "" : "not ", ++check_cases, cases[i].name);
        check_bad_cases += !good;
    }
    return check_done();
}
