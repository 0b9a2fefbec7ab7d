/*
 * pulse.c - a sequence lock over words.
 *
 * The writer's threads take turns by a mutex and publish a private copy: sequence odd,
 * words, sequence even.  Words are atomic, so a reader in the same memory would be well
 * defined too; ours reads with pread, because a mapped file that shrinks kills its reader.
 */
#include "scheduler/pulse.h"

#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/fs.h"
#include "base/launcher.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/proc.h"

enum { WORDS = sizeof(struct pulse_beat) / sizeof(uint64_t), TRIES = 100 };

static const char magic[8] = "KRPULSE1";

struct head {
    char magic[8];
    uint32_t version, slots;
    char rest[48];
};

struct slot {
    _Atomic uint64_t sequence;
    _Atomic uint64_t word[WORDS];
};

_Static_assert(sizeof(struct head) == 64, "the file's layout is a contract");
_Static_assert(sizeof(struct pulse_beat) == 504, "the file's layout is a contract");
_Static_assert(sizeof(struct slot) == 512, "the file's layout is a contract");

const char *pulse_phase_text(int32_t phase)
{
    static const char *const texts[] = {
#define X(name, text) text,
        PULSE_PHASE_MAP(X)
#undef X
    };

    return phase >= 0 && phase < PULSE_PHASES ? texts[phase] : "?";
}

static uint64_t file_bytes(uint32_t slots)
{
    return sizeof(struct head) + (uint64_t)slots * sizeof(struct slot);
}

/* ---- the watcher -------------------------------------------------------------------- */

kr_status pulse_create(const char *path, int32_t slots)
{
    struct head *h = NULL;
    kr_status st;

    if (slots < 1 || slots > PULSE_SLOTS_MAX)
        return KR_FAIL(KR_ERR_ARG, "%s: %d slots, want 1 to %d", path, slots,
                       PULSE_SLOTS_MAX);
    TRY(mem_alloc(&h, file_bytes((uint32_t)slots), 1, "slots of ranks"));
    memcpy(h->magic, magic, sizeof magic);
    h->version = PULSE_VERSION;
    h->slots = (uint32_t)slots;
    st = fs_replace(path, h, file_bytes((uint32_t)slots));
    mem_free(h);
    return st;
}

struct pulse_reader {
    int fd;
    int32_t slots;
};

/* An open file of this kind; its number of slots. */
static kr_status open_file(const char *path, int flags, int *fd, int32_t *slots)
{
    struct head h;
    uint64_t bytes;
    kr_status st;

    TRY(fs_open(fd, path, flags));
    st = fs_size(*fd, path, &bytes);
    if (st == KR_OK) st = fs_pread(*fd, path, &h, sizeof h, 0);
    if (st == KR_OK &&
        (memcmp(h.magic, magic, sizeof magic) != 0 || h.version != PULSE_VERSION ||
         h.slots < 1 || h.slots > PULSE_SLOTS_MAX || bytes != file_bytes(h.slots)))
        st = KR_FAIL(KR_ERR_DATA, "%s: no pulse file of version %d", path, PULSE_VERSION);
    if (st == KR_OK)
        *slots = (int32_t)h.slots;
    else
        close(*fd);
    return st;
}

kr_status pulse_reader_open(struct pulse_reader **out, const char *path)
{
    struct pulse_reader *r = NULL;
    kr_status st;

    TRY(mem_alloc(&r, 1, sizeof *r, "reader of slots"));
    st = open_file(path, O_RDONLY, &r->fd, &r->slots);
    if (st == KR_OK)
        *out = r;
    else
        mem_free(r);
    return st;
}

void pulse_reader_close(struct pulse_reader *r)
{
    if (!r) return;
    close(r->fd);
    mem_free(r);
}

int32_t pulse_reader_slots(const struct pulse_reader *r) { return r->slots; }

/* End a text and make it fit for a terminal. */
static void tame(char *text, size_t bytes)
{
    text[bytes - 1] = '\0';
    for (; *text; text++)
        if ((unsigned char)*text < 32 || *text == 127) *text = '?';
}

static bool get(int fd, void *to, size_t bytes, off_t at)
{
    return pread(fd, to, bytes, at) == (ssize_t)bytes;
}

/* The slot between two looks at its sequence that show the same even number. */
static bool read_whole(int fd, off_t at, struct pulse_beat *out)
{
    uint64_t before, after;

    if (!get(fd, &before, sizeof before, at)) return false;
    atomic_thread_fence(memory_order_acquire);
    if (!get(fd, out, sizeof *out, at + (off_t)sizeof before)) return false;
    atomic_thread_fence(memory_order_acquire);
    return get(fd, &after, sizeof after, at) && before == after && before % 2 == 0;
}

kr_status pulse_read(struct pulse_reader *r, int32_t slot, struct pulse_beat *out)
{
    off_t at = (off_t)sizeof(struct head) + slot * (off_t)sizeof(struct slot);
    struct pulse_beat b;
    bool whole = false;

    if (slot < 0 || slot >= r->slots) return KR_ERR_ARG;
    for (int i = 0; i < TRIES && !whole; i++)
        whole = read_whole(r->fd, at, &b);
    if (!whole || b.phase < 0 || b.phase >= PULSE_PHASES || b.pid < 0) return KR_ERR_DATA;
    tame(b.entered_name, sizeof b.entered_name);
    tame(b.left_name, sizeof b.left_name);
    tame(b.note, sizeof b.note);
    *out = b;
    return KR_OK;
}

/* ---- the rank ----------------------------------------------------------------------- */

struct pulse {
    void *map;
    size_t map_bytes;
    struct slot *slot;
    uint64_t sequence;
    pthread_mutex_t lock;
    struct pulse_beat beat;
};

static struct pulse_beat *begin(struct pulse *p)
{
    pthread_mutex_lock(&p->lock);
    return &p->beat;
}

static void end(struct pulse *p)
{
    uint64_t words[WORDS];

    p->beat.changed = clock_now();
    memcpy(words, &p->beat, sizeof words);
    atomic_store_explicit(&p->slot->sequence, ++p->sequence, memory_order_relaxed);
    atomic_thread_fence(memory_order_release);
    for (int i = 0; i < WORDS; i++)
        atomic_store_explicit(&p->slot->word[i], words[i], memory_order_relaxed);
    atomic_store_explicit(&p->slot->sequence, ++p->sequence, memory_order_release);
    pthread_mutex_unlock(&p->lock);
}

static kr_status map_slot(struct pulse *p, const char *path)
{
    int32_t slots = 0, mine = launcher_local_rank();
    kr_status st = KR_OK;
    int fd;

    TRY(open_file(path, O_RDWR, &fd, &slots));
    p->map_bytes = file_bytes((uint32_t)slots);
    if (mine < 0 || mine >= slots)
        st = KR_FAIL(KR_ERR_ARG, "%s: has %d slots, none for local rank %d", path, slots,
                     mine);
    if (st == KR_OK)
        p->map = mmap(NULL, p->map_bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    close(fd);
    if (st == KR_OK && p->map == MAP_FAILED)
        st = KR_FAIL(KR_ERR_IO, "%s: cannot map it", path);
    if (st == KR_OK)
        p->slot = (struct slot *)((char *)p->map + sizeof(struct head)) + mine;
    return st;
}

void pulse_open(struct pulse **out)
{
    const char *path = getenv("KILORANK_PULSE");
    struct pulse *p = NULL;

    *out = NULL;
    if (!path || !*path || mem_alloc(&p, 1, sizeof *p, "pulse") != KR_OK) return;
    if (map_slot(p, path) != KR_OK) {
        LOG_WARNING("nobody can watch this rank");
        mem_free(p);
        return;
    }
    pthread_mutex_init(&p->lock, NULL);
    /* a process that died inside a change left an odd number */
    p->sequence = (atomic_load(&p->slot->sequence) + 1) & ~UINT64_C(1);
    begin(p);
    p->beat = (struct pulse_beat){ .pid = getpid(),
                                   .started = proc_started(getpid()),
                                   .step = -1,
                                   .snapshot_step = -1,
                                   .exit_code = -1 };
    end(p);
    *out = p;
}

void pulse_close(struct pulse *p)
{
    if (!p) return;
    munmap(p->map, p->map_bytes);
    pthread_mutex_destroy(&p->lock);
    mem_free(p);
}

void pulse_phase(struct pulse *p, enum pulse_phase phase)
{
    if (!p) return;
    begin(p)->phase = (int32_t)phase;
    end(p);
}

void pulse_who(struct pulse *p, int64_t generation, int32_t rank, int32_t size)
{
    struct pulse_beat *b;

    if (!p) return;
    b = begin(p);
    b->generation = generation;
    b->rank = rank;
    b->size = size;
    end(p);
}

void pulse_step(struct pulse *p, int64_t step, double loss, double compute_seconds,
                double wait_seconds)
{
    struct pulse_beat *b;

    if (!p) return;
    b = begin(p);
    b->step = step;
    b->loss = loss;
    b->compute_seconds = compute_seconds;
    b->wait_seconds = wait_seconds;
    end(p);
}

void pulse_snapshot(struct pulse *p, int64_t step, double seconds)
{
    struct pulse_beat *b;

    if (!p) return;
    b = begin(p);
    b->snapshot_step = step;
    b->snapshot_seconds = seconds;
    end(p);
}

void pulse_enter(struct pulse *p, uint64_t number, const char *name)
{
    struct pulse_beat *b;

    if (!p) return;
    b = begin(p);
    b->entered = number;
    snprintf(b->entered_name, sizeof b->entered_name, "%s", name);
    end(p);
}

void pulse_leave(struct pulse *p, uint64_t number, const char *name)
{
    struct pulse_beat *b;

    if (!p) return;
    b = begin(p);
    b->left = number;
    snprintf(b->left_name, sizeof b->left_name, "%s", name);
    end(p);
}

void pulse_note(struct pulse *p, const char *text)
{
    if (!p) return;
    snprintf(begin(p)->note, sizeof p->beat.note, "%s", text);
    end(p);
}

void pulse_exit(struct pulse *p, int exit_code)
{
    struct pulse_beat *b;

    if (!p) return;
    b = begin(p);
    b->phase = PULSE_DONE;
    b->exit_code = exit_code;
    end(p);
}
