/* base.c - find by hash, load unit by unit. */
#include "trainer/run/base.h"

#include <stdio.h>
#include <string.h>

#include "base/hash.h"
#include "base/mem.h"
#include "checkpoints/catalog.h"
#include "trainer/run/state.h"

kr_status base_newest(const char *init, char folder[FS_PATH])
{
    struct catalog c = { 0 };
    kr_status st = KR_OK;

    TRY(fs_path(folder, "%s/manifest.json", init));
    if (fs_exists(folder)) return fs_path(folder, "%s", init);
    TRY(catalog_open(&c, init));
    if (c.valid > 0)
        st = fs_path(folder, "%s", c.list[0].path);
    else
        st = KR_FAIL(KR_ERR_ARG,
                     "train.init = %s: no valid checkpoint there; if it has moved: "
                     "--set train.init=PLACE",
                     init);
    catalog_close(&c);
    return st;
}

/* ---- by hash ---------------------------------------------------------------------------- */

static void hash_range(struct hash *h, const struct manifest *m,
                       const struct ckpt_range *r)
{
    const struct ckpt_tensor *t = &m->tensors[r->tensor];
    int64_t head[5] = { t->rows, t->cols, t->type, r->begin, r->count };

    if (strncmp(t->name, "weight/", 7) != 0) return;
    hash_add(h, t->name, strlen(t->name) + 1);
    hash_add(h, head, sizeof head);
    hash_add(h, r->blocks, (size_t)manifest_blocks(t, r->count) * sizeof *r->blocks);
}

static kr_status hash_weights(const char *folder, char out[33])
{
    struct hash *h = hash_open();
    struct manifest m;
    kr_status st =
        h ? manifest_read(&m, folder) : KR_FAIL(KR_ERR_MEM, "no memory for a hash");

    if (st == KR_OK) {
        for (int32_t i = 0; i < m.range_count; i++)
            hash_range(h, &m, &m.ranges[i]);
        hash_hex(h, out);
        manifest_free(&m);
    }
    hash_close(h);
    return st;
}

/* The newest checkpoint of a run whose weights are these. */
static kr_status find_in_run(const char *init, const char *want, char folder[FS_PATH],
                             bool *found)
{
    struct catalog c = { 0 };
    char hash[33];
    kr_status st;

    *found = false;
    TRY_OR(st, catalog_open(&c, init), done);
    for (int32_t i = 0; i < c.valid && !*found; i++) {
        TRY_OR(st, hash_weights(c.list[i].path, hash), done);
        *found = strcmp(hash, want) == 0;
        if (*found) st = fs_path(folder, "%s", c.list[i].path);
    }
done:
    catalog_close(&c);
    return st;
}

kr_status base_find(const struct settings *set, char folder[FS_PATH])
{
    char newest[FS_PATH], hash[33];
    bool found = false;

    TRY(base_newest(set->init, newest));
    TRY(hash_weights(newest, hash));
    if (strcmp(hash, set->lora_base) == 0) return fs_path(folder, "%s", newest);
    TRY(find_in_run(set->init, set->lora_base, folder, &found));
    if (found) return KR_OK;
    return KR_FAIL(KR_ERR_ARG,
                   "train.init = %s: other weights than those that these adapters belong "
                   "to (lora.base = %s, there: %s)",
                   set->init, set->lora_base, hash);
}

/* What the run began with; empty: it has not begun. */
static kr_status begun_with(const char *run,
                            char out[sizeof((struct settings *)0)->lora_base])
{
    struct settings own;
    char path[FS_PATH];

    out[0] = '\0';
    TRY(fs_path(path, "%s/config.ini", run));
    if (!run[0] || !fs_exists(path)) return KR_OK;
    TRY(cfg_defaults(settings_table, &own));
    TRY(cfg_read_file(settings_table, &own, path));
    strcpy(out, own.lora_base);
    return KR_OK;
}

kr_status base_pin(struct settings *set, const char *run)
{
    char folder[FS_PATH];

    if (set->lora_rank == 0 || !set->init[0]) return KR_OK;
    TRY(begun_with(run, set->lora_base));
    if (set->lora_base[0]) return base_find(set, folder);
    TRY(base_newest(set->init, folder));
    return hash_weights(folder, set->lora_base);
}

/* ---- loading ---------------------------------------------------------------------------- */

static kr_status load_unit(struct trainer *t, struct ckpt *k, int unit)
{
    struct state s = { 0 };
    kr_status st;

    TRY(comm_agree(t->comm, shard_fill(t->shard, unit)));
    TRY_OR(st, comm_agree(t->comm, state_open_frozen(&s, t, unit)), done);
    TRY_OR(st, ckpt_read(k, t->q, &s.view), done);
    st = shard_filled(t->shard, unit);
done:
    state_close(&s);
    return st;
}

static kr_status load_from(struct trainer *t, const char *folder)
{
    struct ckpt_config config = { .run = folder, .keep = 1, .read_only = true };
    struct ckpt_info info = { .step = -1 };
    struct ckpt *k = NULL;
    kr_status st;

    TRY_OR(st, ckpt_open(&k, t->comm, &config), done);
    TRY_OR(st, ckpt_next(k, &info), done);
    if (info.step < 0) st = KR_ERR_NO_CKPT;
    for (int u = 0; u < t->params.frozen && st == KR_OK; u++)
        st = load_unit(t, k, u);
done:
    mem_free(info.settings);
    ckpt_close(k);
    return st == KR_ERR_DATA || st == KR_ERR_IO ? KR_ERR_NO_CKPT : st;
}

kr_status base_load(struct trainer *t)
{
    char folder[FS_PATH] = "";
    kr_status st = KR_OK;

    if (t->params.frozen == 0) return KR_OK;
    if (comm_rank(t->comm) == 0) st = base_find(&t->set, folder);
    TRY(comm_agree(t->comm, st));
    TRY(comm_share(t->comm, folder, sizeof folder));
    return load_from(t, folder);
}
