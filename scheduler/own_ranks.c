/* own_ranks.c - a file of slots, read once a tick. */
#include "scheduler/own_ranks.h"

#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/meminfo.h"
#include "base/proc.h"
#include "scheduler/brood.h"

void own_ranks_close(struct own_ranks *o)
{
    pulse_reader_close(o->reader);
    o->reader = NULL;
    o->killed = meminfo_killed("");
    memset(o->was_alive, 0, sizeof o->was_alive);
    memset(o->had_stepped, 0, sizeof o->had_stepped);
}

kr_status own_ranks_make(struct own_ranks *o, int32_t count)
{
    struct stat s;

    TRY(pulse_create(o->pulse, count));
    TRY(pulse_reader_open(&o->reader, o->pulse));
    if (stat(o->pulse, &s) != 0) return KR_ERR_IO;
    o->made = s.st_ino;
    return KR_OK;
}

void own_ranks_remove(const struct own_ranks *o)
{
    struct stat s;

    if (stat(o->pulse, &s) == 0 && s.st_ino == o->made) (void)unlink(o->pulse);
}

/* Of a rank that is gone without a word, what its host knows. */
static void explain(const struct own_ranks *o, struct wire_rank *r)
{
    if (r->is_alive || r->exit_code >= 0 || r->note[0]) return;
    if (meminfo_killed("") > o->killed)
        snprintf(r->note, sizeof r->note,
                 "nothing, but the kernel has killed processes on this host for want of "
                 "memory");
}

static void copy_rank(const struct pulse_beat *p, struct wire_rank *r)
{
    *r = (struct wire_rank){ .rank = p->rank,
                             .phase = p->phase,
                             .exit_code = p->exit_code,
                             .is_alive = p->pid > 0 && proc_started(p->pid) == p->started,
                             .state = (uint8_t)brood_state(p->pid),
                             .pid = p->pid,
                             .step = p->step,
                             .age = clock_now() - p->changed,
                             .entered = p->entered,
                             .left = p->left,
                             .compute_seconds = p->compute_seconds,
                             .wait_seconds = p->wait_seconds,
                             .loss = p->loss,
                             .snapshot_seconds = p->snapshot_seconds,
                             .snapshot_step = p->snapshot_step };
    snprintf(r->entered_name, sizeof r->entered_name, "%s", p->entered_name);
    snprintf(r->note, sizeof r->note, "%s", p->note);
}

bool own_ranks_read(struct own_ranks *o, struct wire_beat *b)
{
    struct pulse_beat slot;
    bool is_news = false;

    b->count = 0;
    for (int32_t i = 0; o->reader && i < pulse_reader_slots(o->reader); i++) {
        struct wire_rank *r = &b->ranks[b->count];

        if (pulse_read(o->reader, i, &slot) != KR_OK || slot.pid == 0 || slot.size == 0)
            continue;
        copy_rank(&slot, r);
        explain(o, r);
        is_news |=
            (o->was_alive[i] && !r->is_alive) || (!o->had_stepped[i] && r->step >= 0);
        o->was_alive[i] = r->is_alive;
        o->had_stepped[i] = r->step >= 0;
        b->count++;
    }
    return is_news;
}
