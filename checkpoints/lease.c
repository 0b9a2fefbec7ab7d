/* lease.c - lock, look, take, renew. */
#include "checkpoints/lease.h"

#include <cjson/cJSON.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <pthread.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/fs.h"
#include "base/launcher.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/proc.h"

enum { LEASE_MAX = 4096, RENEWALS_WATCHED = 3 };
static const double renew_seconds = 2;

/* What lease.json says. */
struct holder {
    char host[128], job[64];
    int64_t pid, started, generation, renewals;
    int64_t start; /* number that a supervisor gave this start of the run; 0: none did */
};

struct lease {
    struct holder me;
    char path[FS_PATH];
    int fd;
    pthread_t thread;
    pthread_mutex_t lock;
    pthread_cond_t changed;
    bool stop, lost;
};

static void describe_me(struct holder *h)
{
    const char *job = launcher_job(), *start = getenv("KILORANK_GENERATION");

    *h = (struct holder){ .pid = getpid(), .started = proc_started(getpid()) };
    if (h->started < 0) h->started = 0; /* a container without its own /proc */
    (void)gethostname(h->host, sizeof h->host - 1);
    snprintf(h->job, sizeof h->job, "%s", job ? job : "");
    h->start = start ? strtoll(start, NULL, 10) : 0;
    for (char *c = h->host; *c; c++)
        if (*c == '"' || *c == '\\') *c = '_';
    for (char *c = h->job; *c; c++)
        if (*c == '"' || *c == '\\') *c = '_';
}

/* ---- the file --------------------------------------------------------------------------- */

static kr_status write_lease(int fd, const char *path, const struct holder *h)
{
    char text[LEASE_MAX];
    int n = snprintf(text, sizeof text,
                     "{\"host\": \"%s\", \"pid\": %" PRId64 ", \"started\": %" PRId64
                     ", \"job\": \"%s\", \"generation\": %" PRId64
                     ", \"renewals\": %" PRId64 ", \"start\": %" PRId64 "}\n",
                     h->host, h->pid, h->started, h->job, h->generation, h->renewals,
                     h->start);

    TRY(fs_pwrite(fd, path, text, (size_t)n, 0));
    if (ftruncate(fd, n) != 0)
        return KR_FAIL(KR_ERR_IO, "%s: cannot cut: %s", path, strerror(errno));
    return KR_OK;
}

static int64_t number(const cJSON *j, const char *key)
{
    const cJSON *n = cJSON_GetObjectItemCaseSensitive(j, key);

    return cJSON_IsNumber(n) && n->valuedouble >= 0 && n->valuedouble < 0x1p53
               ? (int64_t)n->valuedouble
               : 0;
}

static void copy_text(char *out, size_t size, const cJSON *j, const char *key)
{
    const char *s = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(j, key));

    snprintf(out, size, "%s", s ? s : "");
}

/* An empty, torn or foreign file reads as nobody; one given back has its generation. */
static bool read_lease(int fd, struct holder *out)
{
    char text[LEASE_MAX + 1];
    ssize_t n = pread(fd, text, LEASE_MAX, 0);
    cJSON *j = n > 0 ? cJSON_ParseWithLength(text, (size_t)n) : NULL;

    *out = (struct holder){ 0 };
    if (!j) return false;
    copy_text(out->host, sizeof out->host, j, "host");
    copy_text(out->job, sizeof out->job, j, "job");
    out->pid = number(j, "pid");
    out->started = number(j, "started");
    out->generation = number(j, "generation");
    out->renewals = number(j, "renewals");
    out->start = number(j, "start");
    cJSON_Delete(j);
    return out->host[0] != '\0';
}

static kr_status busy(const char *path, const struct holder *h)
{
    return KR_FAIL(KR_ERR_BUSY,
                   "%s: the run is held by process %" PRId64
                   " on %s%s%s (generation %" PRId64 "); stop it first",
                   path, h->pid, h->host[0] ? h->host : "an unknown host",
                   h->job[0] ? ", job " : "", h->job, h->generation);
}

/* ---- taking ----------------------------------------------------------------------------- */

/* Is the holder named in the file alive?  Only for another host this takes a while. */
static bool is_alive(int fd, const struct holder *me, const struct holder *h)
{
    struct holder later;

    if (strcmp(h->host, me->host) == 0)
        return h->pid != me->pid && proc_started(h->pid) >= 0 &&
               proc_started(h->pid) == h->started;
    LOG_NOTE("lease of process %" PRId64 " on %s: watching whether it is renewed", h->pid,
             h->host);
    clock_sleep(RENEWALS_WATCHED * renew_seconds);
    if (!read_lease(fd, &later) && later.generation == h->generation)
        return false; /* given back */
    return later.renewals != h->renewals || later.generation != h->generation;
}

/* The same supervisor started us after it: it has ended the holder, or cut it off. */
static bool is_replaced(const struct holder *me, const struct holder *h)
{
    return h->start > 0 && me->start > h->start;
}

static kr_status take(struct lease *l, int64_t newest)
{
    struct holder h;
    bool locked = flock(l->fd, LOCK_EX | LOCK_NB) != 0 && errno == EWOULDBLOCK;
    bool held = read_lease(l->fd, &h), free = held && is_replaced(&l->me, &h);

    if (locked && !free && (!held || strcmp(h.host, l->me.host) == 0))
        return busy(l->path, &h);
    if (held && !free && is_alive(l->fd, &l->me, &h)) return busy(l->path, &h);
    l->me.generation = (h.generation > newest ? h.generation : newest) + 1;
    if (held)
        LOG_NOTE("lease taken over from process %" PRId64 " on %s, which is gone", h.pid,
                 h.host);
    TRY(write_lease(l->fd, l->path, &l->me));
    return fs_fsync(l->fd, l->path);
}

static bool is_mine(const struct lease *l, const struct holder *h)
{
    return h->generation == l->me.generation && h->pid == l->me.pid &&
           h->started == l->me.started && strcmp(h->host, l->me.host) == 0;
}

/* Not over the lease of whoever replaced us while we stood still, be it given back since:
 * that would put the zombie back in its place.  Over an older one's stray renewal, yes.  A failed write is
 * tried again at the next renewal. */
static void renew_once(struct lease *l)
{
    struct holder h;

    (void)read_lease(l->fd, &h);
    if (!is_mine(l, &h) && h.generation >= l->me.generation) {
        l->lost = true;
        LOG_WARNING("%s: taken over by process %" PRId64 " on %s; nothing more is saved",
                    l->path, h.pid, h.host[0] ? h.host : "a host that gave it back");
        return;
    }
    l->me.renewals++;
    (void)write_lease(l->fd, l->path, &l->me);
}

/* Raise the counter every two seconds until told to stop. */
static void *renew(void *arg)
{
    struct lease *l = arg;
    struct timespec until;

    pthread_mutex_lock(&l->lock);
    while (!l->stop) {
        clock_gettime(CLOCK_MONOTONIC, &until);
        until.tv_sec += (time_t)renew_seconds;
        if (pthread_cond_timedwait(&l->changed, &l->lock, &until) == ETIMEDOUT &&
            !l->lost)
            renew_once(l);
    }
    pthread_mutex_unlock(&l->lock);
    return NULL;
}

static kr_status start(struct lease *l)
{
    pthread_condattr_t monotonic;
    sigset_t all, old;
    int error;

    pthread_condattr_init(&monotonic);
    pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
    pthread_mutex_init(&l->lock, NULL);
    pthread_cond_init(&l->changed, &monotonic);
    pthread_condattr_destroy(&monotonic);
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &old);
    error = pthread_create(&l->thread, NULL, renew, l);
    pthread_sigmask(SIG_SETMASK, &old, NULL);
    return error ? KR_FAIL(KR_ERR_DEVICE, "cannot start a thread: %s", strerror(error))
                 : KR_OK;
}

kr_status lease_take(struct lease **out, const char *run, int64_t newest)
{
    struct lease *l = NULL;
    kr_status st;

    TRY(mem_alloc(&l, 1, sizeof *l, "lease"));
    l->fd = -1;
    describe_me(&l->me);
    TRY_OR(st, fs_path(l->path, "%s/lease.json", run), done);
    TRY_OR(st, fs_open(&l->fd, l->path, O_RDWR | O_CREAT), done);
    TRY_OR(st, take(l, newest), done);
    TRY_OR(st, start(l), done);
    *out = l;
done:
    if (st != KR_OK) {
        if (l->fd >= 0) close(l->fd);
        mem_free(l);
    }
    return st;
}

/* The file is opened anew: somebody may have replaced it under our descriptor. */
kr_status lease_check(struct lease *l)
{
    struct holder h = { 0 };
    bool ours;
    int fd;

    TRY(fs_open(&fd, l->path, O_RDONLY));
    pthread_mutex_lock(&l->lock); /* not while the thread writes */
    ours = read_lease(fd, &h) && is_mine(l, &h) && !l->lost;
    pthread_mutex_unlock(&l->lock);
    close(fd);
    return ours ? KR_OK : busy(l->path, &h);
}

bool lease_is_lost(struct lease *l)
{
    bool lost;

    pthread_mutex_lock(&l->lock);
    lost = l->lost;
    pthread_mutex_unlock(&l->lock);
    return lost;
}

int64_t lease_generation(const struct lease *l) { return l->me.generation; }

void lease_give_back(struct lease *l)
{
    if (!l) return;
    pthread_mutex_lock(&l->lock);
    l->stop = true;
    pthread_cond_broadcast(&l->changed);
    pthread_mutex_unlock(&l->lock);
    pthread_join(l->thread, NULL);
    if (!l->lost && lease_check(l) == KR_OK) {
        l->me.host[0] = '\0';
        (void)write_lease(l->fd, l->path, &l->me);
    }
    close(l->fd);
    pthread_cond_destroy(&l->changed);
    pthread_mutex_destroy(&l->lock);
    mem_free(l);
}
