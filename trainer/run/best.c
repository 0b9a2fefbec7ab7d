/* best.c - a checkpoint writer beside the run's own, used at evaluations only. */
#include "trainer/run/best.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/fs.h"
#include "base/mem.h"

struct best {
    struct trainer *t;
    struct state state; /* weights */
    struct ckpt *ckpt;
    char folder[FS_PATH], note[FS_PATH];
    double loss;
};

/* The loss that an earlier part of the run noted; none: infinity. */
static double noted_loss(const char *path)
{
    char *text = NULL;
    size_t bytes;
    double loss = INFINITY;

    if (!fs_exists(path) || fs_read_all(path, &text, &bytes, 4096) != KR_OK)
        return INFINITY;
    if (sscanf(text, "{\"step\": %*d, \"loss\": %lf}", &loss) != 1) loss = INFINITY;
    mem_free(text);
    return loss;
}

kr_status best_open(struct best **out, struct trainer *t, const char *run,
                    const char *about)
{
    struct ckpt_config config = { .keep = 1, .about = about };
    struct best *b = NULL;
    kr_status st;

    TRY(mem_alloc(&b, 1, sizeof *b, "best checkpoint"));
    b->t = t;
    TRY_OR(st, fs_path(b->folder, "%s/best", run), done);
    TRY_OR(st, fs_path(b->note, "%s/best.json", b->folder), done);
    config.run = b->folder;
    TRY_OR(st, ckpt_open(&b->ckpt, t->comm, &config), done);
    TRY_OR(st, comm_agree(t->comm, state_open_weights(&b->state, t)), done);
    b->loss = comm_rank(t->comm) == 0 ? noted_loss(b->note) : 0;
    TRY_OR(st, comm_share(t->comm, &b->loss, sizeof b->loss), done);
    *out = b;
done:
    if (st != KR_OK) best_close(b);
    return st;
}

void best_close(struct best *b)
{
    if (!b) return;
    ckpt_close(b->ckpt);
    state_close(&b->state);
    mem_free(b);
}

static kr_status note(const struct best *b, int64_t step)
{
    char text[128];
    int n = snprintf(text, sizeof text, "{\"step\": %" PRId64 ", \"loss\": %.17g}\n",
                     step, b->loss);

    return comm_rank(b->t->comm) == 0 ? fs_replace(b->note, text, (size_t)n) : KR_OK;
}

kr_status best_offer(struct best *b, int64_t step, double loss, const char *settings,
                     bool *kept)
{
    bool saved = false;

    *kept = false;
    if (!(loss < b->loss)) return KR_OK;
    TRY(ckpt_save(b->ckpt, b->t->q, &b->state.view, step, step * b->t->set.batch,
                  settings));
    TRY(ckpt_wait(b->ckpt, &saved));
    if (!saved) return KR_OK;
    b->loss = loss;
    *kept = true;
    return comm_agree(b->t->comm, note(b, step));
}
