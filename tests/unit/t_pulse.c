/* t_pulse.c - a rank's slot is read whole or not at all, whoever writes and dies when. */
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/fs.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/proc.h"
#include "scheduler/pulse.h"
#include "tests/check.h"

enum { SLOTS = 3, SLOT_BYTES = 512, HEAD_BYTES = 64 };

static char path[FS_PATH];

static void must(kr_status st)
{
    if (st != KR_OK) abort();
}

static struct pulse *open_slot(const char *local_rank)
{
    struct pulse *p;

    setenv("OMPI_COMM_WORLD_LOCAL_RANK", local_rank, 1);
    pulse_open(&p);
    return p;
}

static struct pulse_reader *fresh(void)
{
    struct pulse_reader *r = NULL;

    must(pulse_create(path, SLOTS));
    must(pulse_reader_open(&r, path));
    return r;
}

static void what_a_rank_says_is_read(void)
{
    struct pulse_reader *r = fresh();
    struct pulse_beat b = { 0 };
    struct pulse *p = open_slot("1");
    double begin = clock_now();

    must(pulse_read(r, 0, &b));
    CHECK_I64(b.pid, ==, 0);
    must(pulse_read(r, 1, &b));
    CHECK_I64(b.pid, ==, getpid());
    CHECK_I64(b.started, ==, proc_started(getpid()));
    CHECK_I64(b.step, ==, -1);
    CHECK_I64(b.exit_code, ==, -1);
    pulse_who(p, 7, 5, 8);
    pulse_step(p, 12, 2.5, 0.25, 0.125);
    pulse_snapshot(p, 11, 0.5);
    pulse_enter(p, 40, "reduce_tree");
    pulse_leave(p, 39, "a name that is longer than its place");
    pulse_note(p, "no\nanswer");
    pulse_phase(p, PULSE_SAVING);
    must(pulse_read(r, 1, &b));
    CHECK(b.generation == 7 && b.rank == 5 && b.size == 8 && b.step == 12);
    CHECK(b.loss == 2.5 && b.compute_seconds == 0.25 && b.wait_seconds == 0.125);
    CHECK(b.snapshot_step == 11 && b.snapshot_seconds == 0.5);
    CHECK(b.entered == 40 && b.left == 39);
    CHECK_STR(b.entered_name, "reduce_tree");
    CHECK_STR(b.left_name, "a name that is longer t");
    CHECK_STR(b.note, "no?answer");
    CHECK_STR(pulse_phase_text(b.phase), "saving");
    CHECK(b.changed >= begin && b.changed <= clock_now());
    pulse_exit(p, 75);
    must(pulse_read(r, 1, &b));
    CHECK(b.phase == PULSE_DONE && b.exit_code == 75);
    pulse_close(p);
    pulse_reader_close(r);
}

/* Two threads of the rank and a reader: whatever is read was true at one moment.  One
 * thread keeps step and loss equal, the other entered and left.  Now and then they rest
 * outside a change: on a crowded machine they would else be put aside inside one, mostly. */
static atomic_bool over;

static void rest(uint64_t i)
{
    if (i % 16384 == 0) clock_sleep(20e-6);
}

static void *change_collectives(void *p)
{
    for (uint64_t i = 1; !over; i++) {
        pulse_enter(p, i, "one");
        pulse_leave(p, i, "one");
        rest(i);
    }
    return NULL;
}

static void *change_steps(void *p)
{
    for (int64_t i = 0; !over; i++) {
        pulse_step(p, i, (double)i, (double)i, (double)i);
        rest((uint64_t)i);
    }
    return NULL;
}

static void a_slot_is_never_read_torn(void)
{
    struct pulse_reader *r = fresh();
    struct pulse_beat b = { 0 };
    struct pulse *p = open_slot("2");
    int torn = 0, read = 0, moved = 0;
    int64_t last = -1;
    pthread_t threads[2];
    double begin;

    pulse_step(p, 0, 0, 0, 0);
    over = false;
    pthread_create(&threads[0], NULL, change_steps, p);
    pthread_create(&threads[1], NULL, change_collectives, p);
    begin = clock_now(); /* for half a second; longer where cores are rare */
    while (clock_now() < begin + 0.5 ||
           ((read <= 50 || moved <= 10) && clock_now() < begin + 100)) {
        if (pulse_read(r, 2, &b) != KR_OK) continue;
        read++;
        moved += b.step != last;
        torn += b.step < last || b.loss != (double)b.step ||
                b.compute_seconds != b.loss || b.wait_seconds != b.loss ||
                b.entered - b.left > 1;
        last = b.step;
    }
    over = true;
    pthread_join(threads[0], NULL);
    pthread_join(threads[1], NULL);
    CHECK_I64(torn, ==, 0);
    CHECK_I64(read, >, 50);
    CHECK_I64(moved, >, 10);
    pulse_close(p);
    pulse_reader_close(r);
}

static void a_rank_killed_inside_a_change_is_replaced_by_the_next(void)
{
    struct pulse_reader *r = fresh();
    struct pulse_beat b = { 0 };
    uint64_t odd = 41;
    struct pulse *p;
    int fd;

    must(fs_open(&fd, path, O_RDWR));
    must(fs_pwrite(fd, path, &odd, sizeof odd, HEAD_BYTES));
    CHECK_I64(pulse_read(r, 0, &b), ==, KR_ERR_DATA);
    p = open_slot("0");
    CHECK_I64(pulse_read(r, 0, &b), ==, KR_OK);
    CHECK_I64(b.pid, ==, getpid());
    pulse_close(p);
    close(fd);
    pulse_reader_close(r);
}

static void a_slot_outlives_its_rank(void)
{
    struct pulse_reader *r = fresh();
    struct pulse_beat b = { 0 };
    pid_t pid = fork();

    if (pid == 0) {
        pulse_step(open_slot("0"), 99, 1, 1, 1);
        raise(SIGKILL);
    }
    waitpid(pid, NULL, 0);
    must(pulse_read(r, 0, &b));
    CHECK(b.pid == pid && b.step == 99 && b.exit_code == -1);
    CHECK(proc_started(b.pid) != b.started);
    pulse_reader_close(r);
}

/* Any bytes at all: an answer, bounded texts, no crash. */
static void garbage_is_refused_or_plausible(void)
{
    struct pulse_reader *r = fresh();
    struct pulse_beat b;
    unsigned char bytes[SLOT_BYTES];
    int fd, refused = 0;

    must(fs_open(&fd, path, O_RDWR));
    srand(7);
    for (int round = 0; round < 500; round++) {
        for (size_t i = 0; i < sizeof bytes; i++)
            bytes[i] = (unsigned char)(rand() >> 7);
        bytes[0] &= 0xfe;
        if (round % 2) { /* a phase and a process that there may be */
            memset(bytes + 8 + offsetof(struct pulse_beat, phase), 0, 4);
            memset(bytes + 8 + offsetof(struct pulse_beat, pid), 0, 8);
        }
        must(fs_pwrite(fd, path, bytes, sizeof bytes, HEAD_BYTES + SLOT_BYTES));
        if (pulse_read(r, 1, &b) != KR_OK) {
            refused++;
            continue;
        }
        CHECK(b.phase >= 0 && b.phase < PULSE_PHASES);
        CHECK(memchr(b.note, 0, sizeof b.note) && memchr(b.left_name, 0, 24));
        for (const char *c = b.note; *c; c++)
            CHECK((unsigned char)*c >= 32 && *c != 127);
    }
    CHECK_I64(refused, >, 200);
    CHECK_I64(refused, <, 500);
    CHECK(ftruncate(fd, HEAD_BYTES + 100) == 0);
    CHECK_I64(pulse_read(r, 1, &b), ==, KR_ERR_DATA);
    CHECK_I64(pulse_read(r, SLOTS, &b), ==, KR_ERR_ARG);
    close(fd);
    pulse_reader_close(r);
}

static char said[4096];

static void listen_in(enum log_level level, const char *text, void *arg)
{
    (void)level, (void)arg;
    snprintf(said + strlen(said), sizeof said - strlen(said), "%s\n", text);
}

/* No variable, no file, a file of another kind, no slot for this rank: training goes on. */
static void without_a_good_file_nobody_watches(void)
{
    struct pulse_reader *r = fresh();

    said[0] = '\0';
    log_capture(listen_in, NULL);
    CHECK(open_slot("3") == NULL);
    CHECK(strstr(said, "none for local rank 3") != NULL);
    CHECK(open_slot("-1") == NULL);
    must(fs_replace(path, "something else", 14));
    CHECK(open_slot("0") == NULL);
    must(fs_unlink(path));
    CHECK(open_slot("0") == NULL);
    CHECK(strstr(said, "nobody can watch this rank") != NULL);
    said[0] = '\0';
    unsetenv("KILORANK_PULSE");
    CHECK(open_slot("0") == NULL);
    CHECK_STR(said, "");
    log_capture(NULL, NULL);
    pulse_step(NULL, 1, 1, 1, 1);
    pulse_exit(NULL, 0);
    pulse_close(NULL);
    pulse_reader_close(r);
    setenv("KILORANK_PULSE", path, 1);
}

static void measure(void)
{
    struct pulse_reader *r = fresh();
    struct pulse *p = open_slot("0");
    enum { N = 20000 };
    double begin = clock_now();

    for (int i = 0; i < N; i++)
        pulse_enter(p, (uint64_t)i, "reduce_tree");
    printf("# a change: %.0f ns\n", (clock_now() - begin) / N * 1e9);
    pulse_close(p);
    pulse_reader_close(r);
}

int main(void)
{
    char folder[] = "/tmp/t_pulse.XXXXXX";

    if (!mkdtemp(folder)) abort();
    must(fs_path(path, "%s/pulse", folder));
    setenv("KILORANK_PULSE", path, 1);
    RUN(what_a_rank_says_is_read);
    RUN(a_slot_is_never_read_torn);
    RUN(a_rank_killed_inside_a_change_is_replaced_by_the_next);
    RUN(a_slot_outlives_its_rank);
    RUN(garbage_is_refused_or_plausible);
    RUN(without_a_good_file_nobody_watches);
    measure();
    must(fs_remove_tree(folder));
    return check_done();
}
